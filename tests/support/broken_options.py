"""Words behind ``--options`` with one mistake each, and what its message must contain.

What keys must hold together is in `broken_relations`.
"""

from __future__ import annotations

BROKEN_OPTIONS = {
    "typo_in_run": ("run.bacth_size_train=8", "run.bacth_size_train", "run.batch_size_train?"),
    "typo_in_model": (
        "model.branches.clip.num_query_tokens=4",
        "model.branches.clip.num_query_tokens",
        "did you mean model.branches.clip.num_query_token?",
    ),
    "typo_in_processor": (
        "datasets.roco.vis_processor.train.imagesize=64",
        "datasets.roco.vis_processor.train.imagesize",
        "did you mean datasets.roco.vis_processor.train.image_size?",
    ),
    "typo_in_dataset": (
        "datasets.roco.raito=2",
        "datasets.roco.raito is not a known key",
        "datasets.roco.ratio",
    ),
    "key_of_another_section": ("run.embed_dim=4", "run.embed_dim", "did you mean model.embed_dim?"),
    "key_of_the_other_model": ("model.stage1=x", "model.stage1 is not a known key"),
    "typo_in_section": ("rnu.seed=1", "'rnu' is unknown", "did you mean 'run'?"),
    "section_as_value": ("run=3", "--options: run is 3", "expected a mapping"),
    "pair_after_assignment": (
        "run.seed=1 run.max_epoch 7",
        "mix 'key=value' and 'key value'",
        "write run.max_epoch=7",
    ),
    "assignment_after_pair": (
        "run.max_epoch 7 run.seed=1",
        "mix 'key value' and 'key=value'",
        "'run.seed=1'",
        "write all of them as key=value",
    ),
    "odd_pairs": ("run.max_epoch 7 run.seed", "'run.seed' has no value", "key=value"),
    "spaces_around_equals": ("run.seed = 3", "'=' on its own", "without spaces"),
    "empty_value": ("run.output_dir=", "run.output_dir has no value", "run.output_dir=VALUE"),
    "no_key": ("=3", "(nothing)", "run.max_epoch"),
    "double_dot": ("run..seed=3", "run..seed", "names with dots between"),
    "list_element": ("run.train_splits[0]=val", "run.train_splits[0]", "run.train_splits=[a, b]"),
    "key_below_a_value": ("run.seed=1 run.seed.x=2", "run.seed.x", "was set to 1 before"),
    "colon_without_space": (
        "run.train_dataset_ratios={roco:9}",
        "'roco:9'",
        "a space after the colon",
    ),
    "not_yaml": ("run.train_splits=[train", "run.train_splits=[train", "not readable as YAML"),
    "scale_overlay_by_option": ("scales.demo.run.max_epoch=1", "scales", "run.max_epoch=1"),
    "unknown_scale": ("scale=papper", "scale 'papper' is unknown", "did you mean 'paper'?"),
    "unknown_reference": ("run.log_freq=${run.sed}", "run.log_freq", "run.sed", "${run.seed}"),
    "unknown_arch": (
        "model.arch=blip2_dual_qfromer",
        "model.arch 'blip2_dual_qfromer' is unknown",
        "did you mean 'blip2_dual_qformer'?",
    ),
    "unknown_model_type": ("model.model_type=nope", "model.model_type 'nope'", "demo, paper"),
    "unknown_dataset": ("datasets.rocco.type=demo", "'rocco' is unknown", "did you mean 'roco'?"),
    "unknown_dataset_type": ("datasets.roco.type=deflt", "datasets.roco.type 'deflt'", "'default'"),
    "unknown_task": (
        "run.task=mixed_semantic_pretrian",
        "run.task 'mixed_semantic_pretrian'",
        "'mixed_semantic_pretrain'?",
    ),
    "unknown_runner": (
        "run.runner=runner_msmedcp",
        "run.runner",
        "did you mean 'runner_msmedcap'?",
    ),
    "foreign_runner": ("run.runner=runner_base", "run.runner: runner_msmedcap", "runner_base"),
    "unknown_lr_sched": (
        "run.lr_sched=linear_warmup_cosine",
        "run.lr_sched 'linear_warmup_cosine'",
        "'linear_warmup_cosine_lr'?",
    ),
    "unknown_processor": (
        "datasets.roco.text_processor.train.name=msmedcap_captoin",
        "datasets.roco.text_processor.train.name 'msmedcap_captoin'",
        "did you mean 'msmedcap_caption'?",
    ),
    "number_as_words": ("run.init_lr=fast", "run.init_lr is 'fast'", "expected a number"),
    "fraction": ("run.max_epoch=1.5", "run.max_epoch is 1.5", "a whole number"),
    "out_of_range": ("run.batch_size_train=0", "run.batch_size_train is 0", "at least 1"),
    "not_a_boolean": ("run.evaluate=maybe", "run.evaluate is 'maybe'", "true or false"),
    "unknown_choice": ("run.amp=bf61", "run.amp is 'bf61'", "off, bf16, fp16"),
    "null_for_a_number": ("run.max_epoch=null", "run.max_epoch is null", "a whole number"),
    "list_expected": ("run.train_splits=train", "run.train_splits is 'train'", "write [train]"),
    "unknown_train_split": (
        "run.train_splits=[trian]",
        "run.train_splits[0]",
        "did you mean train?",
    ),
    "unknown_valid_split": ("run.valid_splits=[vall]", "run.valid_splits[0]", "did you mean val?"),
    "nothing_to_train_on": ("run.train_splits=[]", "run.train_splits is empty", "write [train]"),
    "nothing_to_evaluate": (
        "run.evaluate=true run.valid_splits=[]",
        "run.test_splits is empty",
        "write [test]",
    ),
    "unknown_ratio": (
        "run.train_dataset_ratios={rocoo: 1}",
        "run.train_dataset_ratios 'rocoo'",
        "did you mean 'roco'?",
    ),
    "negative_ratio": (
        "run.train_dataset_ratios={roco: -1}",
        "run.train_dataset_ratios.roco is -1",
        "at least 0",
    ),
    "min_lr_above_init_lr": ("run.min_lr=1", "run.min_lr is 1", "more than run.init_lr"),
    "unknown_device": ("run.device=gpu", "run.device 'gpu'", "cpu or cuda"),
    "resume": ("run.resume=nowhere", "nowhere is no run directory", "auto or off"),
    "lavis_resume": ("run.resume_ckpt_path=output", "run.resume_ckpt_path", "set run.resume to"),
    "every_branch_dropped": (
        "model.branches.clip=null model.branches.sam=null",
        "model.branches: every branch is null",
        "keep clip, sam, or both",
    ),
    "every_dataset_dropped": (
        "datasets.roco=null datasets.medicat=null datasets.coco2014_caption=null "
        "model.branches.clip=null model.branches.sam.train_on=[]",
        "datasets: is empty",
        "at least one dataset",
    ),
    "branch_without_data": (
        "datasets.coco2014_caption=null",
        "model.branches.clip.train_on is [general]",
        "model.branches.clip=null",
    ),
    "unknown_domain": (
        "model.branches.sam.train_on=[medcal]",
        "model.branches.sam.train_on[0] is 'medcal'",
        "did you mean medical?",
    ),
    "unknown_branch": (
        "model.branches.sma.num_query_token=4",
        "model.branches.sma",
        "branches.sam?",
    ),
    "unknown_starting_point": (
        "model.branches.sam.init=brt",
        "model.branches.sam.init is 'brt'",
        "did you mean bert?",
    ),
    "starting_point_without_file": (
        "model.branches.sam.init=bert",
        "model.branches.sam.init is bert",
        "model.pretrained.bert names no file",
    ),
    "unknown_pretrained": (
        "model.pretrained.blip=x.pth",
        "model.pretrained.blip is not a known key",
        "model.pretrained.blip2?",
    ),
    "missing_weights": (
        "model.branches.clip.encoder.weights=nowhere.pth",
        "model.branches.clip.encoder.weights",
        "nowhere.pth does not exist",
    ),
    "finetuned_without_path": (
        "model.load_finetuned=true",
        "model.finetuned is null",
        "model.load_finetuned=false",
    ),
    "finetuned_not_used": (
        "model.finetuned=here",
        "model.finetuned is 'here', but not used",
        "model.load_finetuned=true",
    ),
    "finetuned_not_there": (
        "model.load_finetuned=true model.finetuned=nowhere",
        "model.finetuned: no checkpoint",
        "nowhere",
    ),
    "heads_do_not_divide": (
        "model.qformer.num_heads=5",
        "model.qformer.hidden_size is 128",
        "model.qformer.num_heads (5)",
    ),
    "global_block_beyond_depth": (
        "model.branches.sam.encoder.global_attn_indexes=[1,4]",
        "global_attn_indexes has [4]",
        "from 0 to 3",
    ),
    "size_against_its_width": (
        "model.branches.sam.encoder.size=vit_l",
        "model.branches.sam.encoder.size is vit_l (width 1024, depth 24",
        "but width is 96, depth is 4",
        "take out size, or the other keys",
    ),
    "pool_leaves_a_rest": (
        "model.branches.sam.encoder.tokens=spatial_pooled model.branches.sam.encoder.pool=3",
        "model.branches.sam.encoder.pool is 3",
        "the 16 positions per side",
    ),
    "mlp_of_clip_l": (
        "model.branches.clip.encoder.name=clip_l model.branches.clip.encoder.mlp_ratio=2",
        "model.branches.clip.encoder.mlp_ratio is 2",
        "always 4",
    ),
    "views_of_another_size": (
        "datasets.roco.vis_processor.eval.sam_image_size=64",
        "datasets.roco.vis_processor.eval.sam_image_size is 64",
        "make them equal",
    ),
}
