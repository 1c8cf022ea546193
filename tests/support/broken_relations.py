"""Settings that are sound one by one and do not work together, each with parts of its message.

And values that only the library behind them refuses. By the packaged run that they are options of.
"""

from __future__ import annotations

PRETRAIN = {
    # splits, ratios, length of an epoch
    "train_on_val": (
        "run.train_splits=[val]",
        "run.train_splits is ['val']",
        "only [train] can be trained on",
    ),
    "train_on_val_too": ("run.train_splits=[train,val]", "run.train_splits is", "write [train]"),
    "split_twice": ("run.valid_splits=[val,val]", "run.valid_splits names val", "write [val]"),
    "nobody_has_val": (
        "datasets.roco=null datasets.medicat=null "
        "datasets.coco2014_caption.build_info.annotations.val=null",
        "run.valid_splits: no dataset has a split 'val'",
        "run.valid_splits=[] to do without",
    ),
    "ratio_0_leaves_a_branch_idle": (
        "run.train_dataset_ratios={coco2014_caption: 0}",
        "model.branches.clip.train_on is [general]",
        "none of its datasets (coco2014_caption) has a train split and a ratio above 0",
        "model.branches.clip=null",
    ),
    "own_ratio_0_leaves_a_branch_idle": (
        "datasets.coco2014_caption.ratio=0",
        "model.branches.clip.train_on is [general]",
        "a ratio above 0",
    ),
    "all_ratios_0": (
        "run.train_dataset_ratios={coco2014_caption: 0, roco: 0, medicat: 0}",
        "(coco2014_caption, roco, medicat) are 0",
        "raise run.train_dataset_ratios",
    ),
    "all_own_ratios_0": (
        "datasets.coco2014_caption.ratio=0 datasets.roco.ratio=0 datasets.medicat.ratio=0",
        "(coco2014_caption, roco, medicat) are 0",
        "datasets.<name>.ratio",
    ),
    "ratio_of_a_dataset_without_train": (
        "datasets.roco.splits=[val] run.train_dataset_ratios={roco: 2}",
        "run.train_dataset_ratios.roco: the dataset has no split 'train' (val)",
        "take the ratio out",
    ),
    "epoch_shorter_than_a_batch_per_domain": (
        "run.samples_per_epoch=32",
        "run.samples_per_epoch is 32",
        "2 domains takes 64",
        "raise it",
    ),
    "unknown_tracker": ("run.trackers=[wanbd]", "is 'wanbd'", "did you mean wandb?"),
    "epochs_and_steps": (
        "run.max_iters=100",
        "run.max_epoch is 2 and run.max_iters is 100",
        "run.max_epoch=null to count optimizer steps",
    ),
    "inner_epochs_of_epochs": (
        "run.iters_per_inner_epoch=5",
        "run.iters_per_inner_epoch is 5, but run.max_iters is not given",
    ),
    "two_lengths_of_an_epoch": (
        "run.max_epoch=null run.max_iters=9 run.iters_per_inner_epoch=5 run.samples_per_epoch=640",
        "run.iters_per_inner_epoch is 5 and run.samples_per_epoch is 640",
    ),
    "inner_epoch_shorter_than_a_batch_per_domain": (
        "run.max_epoch=null run.max_iters=9 run.iters_per_inner_epoch=1",
        "run.iters_per_inner_epoch is 1, too short for a batch of each of 2 domains",
        "at least 2",
    ),
    "misspelt_metric": (
        "run.best_metric=sma/loss_itc",
        "run.best_metric 'sma/loss_itc' is unknown",
        "did you mean 'sam/loss_itc'?",
    ),
    "metric_of_a_branch_that_does_not_look": (
        "run.best_metric=roco/clip/loss_itc",
        "run.best_metric 'roco/clip/loss_itc' is unknown",
        "did you mean",
    ),
    "metric_without_validation": (
        "run.best_metric=loss run.valid_splits=[]",
        "run.best_metric is loss, but run.valid_splits is empty",
        "set run.valid_splits=[val], or run.best_metric=null",
    ),
    "early_stopping_without_validation": (
        "run.early_stopping=2 run.valid_splits=[]",
        "run.early_stopping is 2, but run.valid_splits is empty",
        "run.early_stopping=null",
    ),
    "augmentation_beside_a_cache": (
        "datasets.roco.vis_processor.train.augment={}",
        "run.feature_cache_gib is 1",
        "datasets.roco.vis_processor.train.augment changes the pictures in every epoch",
        "run.feature_cache_gib=0",
    ),
    "windows_of_training_and_evaluation": (
        "datasets.roco.vis_processor.train.window={preset: lung}",
        "datasets.roco.vis_processor.train.window is {'preset': 'lung'}",
        "that of eval is null",
    ),
    "augmentation_of_evaluation": (
        "datasets.roco.vis_processor.eval.augment={}",
        "datasets.roco.vis_processor.eval.augment is not a known key",
    ),
    # numbers that NumPy, torch or Python refuse
    "seed_of_33_bits": (
        "run.seed=4294967296",
        "run.seed is 4294967296",
        "at most 2147483647",
    ),
    "beta2_of_1": ("run.beta2=1", "run.beta2 is 1", "less than 1"),
    "epoch_beyond_memory": (
        "run.samples_per_epoch=1e18",
        "run.samples_per_epoch is 1e+18",
        "at most 1000000000",
    ),
    "ratio_beyond_memory": (
        "run.train_dataset_ratios={roco: 1e300}",
        "run.train_dataset_ratios.roco is 1e+300",
        "at most 1000",
    ),
    "own_ratio_beyond_memory": ("datasets.roco.ratio=1e300", "is 1e+300", "at most 1000"),
    "cache_beyond_memory": ("run.feature_cache_gib=1e300", "is 1e+300", "at most 1000000"),
    "growing_lr": ("run.lr_decay_rate=1e300", "run.lr_decay_rate is 1e+300", "at most 1"),
    "workers": ("run.num_workers=100000", "run.num_workers is 100000", "at most 512"),
    "length_penalty": ("run.length_penalty=500", "run.length_penalty is 500", "at most 10"),
    "min_len_above_the_default": (
        "run.min_len=31",
        "run.min_len is 31, more than run.max_len (30)",
    ),
    # devices, processes, folders
    "nothing_to_divide": (
        "run.shard_llm=true",
        "run.shard_llm is true, but blip2_dual_qformer has no language model",
        "take the key out",
    ),
    "second_cpu": ("run.device=cpu:3", "run.device 'cpu:3'", "there is one CPU", "cpu or cuda"),
    "world_size_without_torchrun": (
        "run.distributed=true run.world_size=2",
        "run.world_size is 2",
        "torchrun --nproc_per_node=2",
        "leave the key out",
    ),
    "dist_url": ("run.dist_url=localhost", "run.dist_url is 'localhost'", "env://"),
    "output_dir_is_a_file": (
        "run.output_dir=/etc/passwd",
        "run.output_dir '/etc/passwd'",
        "/etc/passwd is a file",
        "name a folder that you may write to",
    ),
    "output_dir_below_a_file": ("run.output_dir=/etc/passwd/x", "/etc/passwd is a file"),
    "output_dir_too_long": (f"run.output_dir=/tmp/{'x' * 300}", "File name too long"),
    # task and model
    "task_of_the_other_stage": (
        "run.task=medical_captioning",
        "model.arch is blip2_dual_qformer, but run.task is medical_captioning",
        "set run.task=mixed_semantic_pretrain, or model.arch=msmedcap",
    ),
    "model_of_the_other_stage": (
        "model.arch=msmedcap model.load_finetuned=false",
        "model.arch is msmedcap, but run.task is mixed_semantic_pretrain",
        "set run.task=medical_captioning, or model.arch=blip2_dual_qformer",
    ),
    "model_of_no_task": (
        "model.arch=msmedcap_image_text_matching",
        "model.arch is msmedcap_image_text_matching",
        "set it to blip2_dual_qformer",
    ),
    "task_of_lavis_on_our_data": (
        "run.task=captioning",
        "run.task is captioning, LAVIS' task",
        "numbers as image ids, and roco, medicat have none",
        "set run.task=mixed_semantic_pretrain",
    ),
    "task_of_lavis_with_questions": (
        "run.task=vqa",
        "evaluates with questions and answers, and coco2014_caption, roco, medicat have none",
    ),
    "task_of_lavis_without_its_keys": (
        "run.task=captioning datasets.roco=null datasets.medicat=null run.valid_splits=[]",
        "run.task is captioning, which needs run.num_beams, run.max_len, run.min_len",
    ),
    # datasets
    "no_splits": (
        "datasets.roco.splits=[]",
        "datasets.roco.splits names no split",
        "datasets.roco=null",
    ),
    "no_annotations": (
        "datasets.coco2014_caption.build_info.annotations.train=null "
        "datasets.coco2014_caption.build_info.annotations.val=null",
        "datasets.coco2014_caption.build_info.annotations names no split",
    ),
    "no_kinds": ("datasets.roco.kinds=[]", "datasets.roco.kinds is empty", "[radiology]"),
    "no_samples": (
        "datasets.roco.max_samples.train=0",
        "datasets.roco.max_samples.train is 0",
        "at least 1",
    ),
    "fractions_above_1": (
        "datasets.medicat.split_fractions={train: 0.9, val: 0.9, test: 0.1}",
        "datasets.medicat.split_fractions add up to 1.9",
        "at most 1",
    ),
    "split_without_a_share": (
        "datasets.medicat.split_fractions.val=0",
        "leaves nothing to val",
        "datasets.medicat.splits=[train, test]",
    ),
    "text_processor_for_images": (
        "datasets.roco.vis_processor.train={name: blip_caption}",
        "datasets.roco.vis_processor.train.name is blip_caption, which is for texts",
        "msmedcap_image_train",
    ),
    "own_text_processor_for_images": (
        "datasets.roco.vis_processor.eval.name=msmedcap_caption",
        "datasets.roco.vis_processor.eval.name is msmedcap_caption, which is for texts",
        "msmedcap_image_eval",
    ),
    "video_processor": (
        "datasets.roco.vis_processor.train.name=alpro_video_train",
        "alpro_video_train, which is for videos",
    ),
    "image_processor_for_texts": (
        "datasets.roco.text_processor.train.name=msmedcap_image_train",
        "datasets.roco.text_processor.train.name is msmedcap_image_train, which is for images",
        "msmedcap_caption",
    ),
    "images_that_do_not_stack": (
        "datasets.roco.vis_processor.train.name=blip_image_train",
        "the medical ones are mixed in one batch",
        "roco: a tensor of 64 pixels, medicat: packed views",
        "the same processor",
    ),
    "dataset_as_list": (
        "datasets.roco=[]",
        "datasets.roco is []",
        "type, data_type, domain, ratio",
    ),
    # model
    "no_domain": (
        "model.branches.clip.train_on=[] model.branches.sam.train_on=[]",
        "model.branches.clip.train_on and model.branches.sam.train_on: []",
        "nothing would train",
    ),
    "no_objective": (
        "model.loss_weights={itc: 0, itm: 0, lm: 0}",
        "model.loss_weights are all 0",
        "itc, itm, lm",
    ),
    "one_image_at_a_time": (
        "run.batch_size_train=1 run.accum_grad_iters=8",
        "run.batch_size_train is 1, in one process",
        "set run.batch_size_train=2 or more",
        "model.loss_weights.itc=0 model.loss_weights.itm=0",
    ),
    "one_image_at_a_time_in_validation": (
        "run.batch_size_eval=1 model.loss_weights.itc=0",
        "run.batch_size_eval is 1",
        "or model.loss_weights.itm=0",
    ),
    "text_of_one_token": ("model.max_txt_len=1", "model.max_txt_len is 1", "at least 3"),
    "text_beyond_bert": (
        "model.max_txt_len=513",
        "model.max_txt_len is 513",
        "512 positions",
    ),
    "image_of_no_pixels": (
        "model.branches.clip.encoder.image_size=0",
        "model.branches.clip.encoder.image_size is 0",
        "at least 1",
    ),
    "image_of_less_than_none": (
        "model.branches.clip.encoder.image_size=-3",
        "model.branches.clip.encoder.image_size is -3",
    ),
    "no_arch": ("model.arch=null", "model.arch is null", "for example blip2_dual_qformer"),
    "arch_as_number": ("model.arch=3", "model.arch is 3", "expected text"),
    "type_as_number": ("datasets.roco.type=3", "datasets.roco.type is 3", "expected text"),
    "no_dataset_type": ("datasets.roco.type=null", "datasets.roco.type is null", "default"),
    "datasets_as_list": ("datasets=[]", "--options: datasets is []", "expected a mapping"),
    "no_model_type": ("model.model_type=null", "model.model_type is null", "demo, paper"),
    # words that do nothing
    "empty_mapping": (
        "datasets.coco2014_caption.build_info.annotations={}",
        "annotations is {}, which changes nothing",
        "annotations.train=null",
    ),
    "round_brackets": ("run.train_splits=(train)", "is '(train)'", "write [train]"),
    "bracketed_name": (
        "model.branches.[clip]=3",
        "model.branches.[clip]",
        "write model.branches.clip",
    ),
}

CAPTION = {
    "misspelt_metric": (
        "run.best_metric=CIDer",
        "run.best_metric 'CIDer' is unknown",
        "did you mean 'CIDEr'?",
    ),
    "caption_beyond_the_llm": (
        "run.max_len=100000",
        "run.max_len is 100000, but of the 256 positions of the LLM (model.llm.weights)",
        "16 queries and the 9 tokens of model.prompt leave 231",
        "at most 231",
    ),
    "caption_beyond_the_llm_by_one": ("run.max_len=232", "run.max_len is 232", "at most 231"),
    "training_text_beyond_the_llm": (
        "model.max_txt_len=241",
        "model.max_txt_len is 241",
        "lower it to at most 240",
    ),
    "queries_beyond_the_llm": (
        "model.branches.clip.num_query_token=250",
        "branches' queries are 258, but the LLM",
        "lower model.branches.<name>.num_query_token",
    ),
    "prompt_beyond_the_llm": (
        f"model.prompt={'CT_' * 200}",
        "tokens and the branches' queries are 16, but the LLM",
        "shorten model.prompt",
    ),
    "prompt_leaves_no_caption": (
        "model.max_txt_len=9",
        "model.max_txt_len is 9, but model.prompt alone has 9 tokens",
        "raise model.max_txt_len",
    ),
    "validation_without_references": (
        "run.valid_splits=[train]",
        "run.valid_splits names train",
        "no references",
        "write [val] or [test]",
    ),
    "test_without_references": (
        "run.test_splits=[train,test]",
        "run.test_splits names train",
        "write [test]",
    ),
    "all_ratios_0": ("datasets.roco.ratio=0 datasets.medicat.ratio=0", "(roco, medicat) are 0"),
}

EVALUATE = {
    "caption_beyond_the_llm": ("run.max_len=400", "run.max_len is 400", "at most 231"),
    "references": ("run.test_splits=[train]", "run.test_splits names train", "[val] or [test]"),
    "task_of_the_other_stage": (
        "run.task=mixed_semantic_pretrain",
        "model.arch is msmedcap, but run.task is mixed_semantic_pretrain",
    ),
}
