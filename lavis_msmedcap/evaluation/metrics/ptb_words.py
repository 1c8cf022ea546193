"""Words that decide in the tokenizer whether a full stop belongs to a word, as alternatives."""

from __future__ import annotations

# Keep their stop anywhere, in any case.
ABBREVIATIONS = (
    "adj|adm|adv|al|ala|alex|apr|ariz|assn|assoc|asst|atty|aug|ave|bhd|bldg|"
    "blvd|brig|bros|calif|capt|cf|cie|cmdr|co|col|colo|comdr|conn|corp|cos|"
    "cpl|ct|dak|dec|dept|det|dr|drs|elec|ens|esq|est|etc|ext|feb|fla|fri|ft|"
    "ga|gen|gov|govs|hon|inc|ind|insp|intl|invt|jan|jos|jr|jul|jun|kan|kans|"
    "ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|"
    "mrs|ms|msgr|mt|mtg|natl|neb|nev|nov|oct|okla|penn|pfc|ph|plc|pres|ppte|"
    "ppty|prof|profs|pte|ptes|pty|ptys|pvt|rd|rep|reps|rev|rt|sen|sens|sep|"
    "sept|seq|sfc|sgt|spc|sq|sr|st|ste|supt|supts|sys|tel|tenn|thu|thurs|tue|"
    "tues|univ|va|vs|vt|wed|wis|wisc|wm|wyo"
)

# Keep their stop only when capitalised: in lower case they are words ("mass.").
CAPITALISED_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"

# Keep their stop only before a number: "Fig. 2", but "in this fig".
NUMBER_ABBREVIATIONS = "art|ca|fig|figs|no|nos|op|pp|prop"

# A single letter keeps its stop ("vitamin C.") unless one of these opens a sentence after it.
SENTENCE_STARTERS = (
    "A|About|According|Additionally|After|An|Another|As|At|Both|But|Earlier|He|"
    "Her|Here|How|However|If|In|It|Last|Many|More|Now|Once|One|Other|Our|She|"
    "Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|"
    "While|Yet|You"
)
