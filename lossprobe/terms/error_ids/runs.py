"""Error ids about runs, outputs and what may be compared."""

from __future__ import annotations

from lossprobe.terms.term import error_ids

SCORE_BOTH = "Score both with the same text and options."
VERIFY = "Check it with lossprobe verify, and score again."

USAGE = {
    "object.address": "An address of object storage holds credentials or options, or names no key. → Write "
    "s3://BUCKET/KEY, and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL.",
    "object.checkpoint": "A checkpoint lies on object storage, which only texts and runs may. → Copy it first.",
    "object.remove": "The run lies on object storage, from which lossprobe removes none. → Use a tool of the store.",
    "output.inside_checkpoint": "The output would lie inside a checkpoint, which is never changed. → Choose another "
    "place.",
    "output.inside_run": "The output would lie inside a run or baseline, which is never changed. → Choose another "
    "place.",
    "output.is_input": "The output would replace a file that was read. → Choose another name.",
    "output.name": "The file name after --csv or --plot is empty. → Name a file, or leave out the = for the default "
    "name.",
    "output.several_runs": "-o names one place, and several runs would be stored. → Leave -o out.",
    "output.suffix": "What follows --csv or --plot has another suffix, and is no source either; or a picture's name "
    "ends in none of .png, .svg and .pdf. → Write --csv=NAME, or let a picture's name end in one of these.",
    "output.two_results": "Two results cannot both go to one place. → Give one of them a file name.",
    "preferences.no_pairs": "The text or run holds no pairs, or only the chosen sides of them. → Name a checkpoint and "
    "records with chosen and rejected.",
    "preferences.by_label": "--by names a label of tokens (role, turn or part), of which a pair has several. → Name a "
    "field of the records.",
    "preferences.reference": "The reference is a checkpoint, and no pairs are named to score with it. → lossprobe "
    "preferences CHECKPOINT PAIRS --reference CHECKPOINT2.",
    "shard.array": "The task belongs to some tasks of a Slurm array, which do not say how many all are. → Name the "
    "shard: --shard $SLURM_ARRAY_TASK_ID/8.",
    "shard.environment": "--shard slurm or torchrun, and a variable that these set is not there. → Start the command "
    "with them, or name the shard: --shard 3/8.",
    "shard.number": "--shard names no shard, such as 3/8; the first is 1/8. → Count from 1.",
    "shard.overwrite": "A shard cannot overwrite a run, which others are scoring. → lossprobe runs remove RUN, then "
    "start all shards.",
    "series.sources": "A series takes two checkpoints or more, and a text. → lossprobe series FOLDER TEXT, or name the "
    "checkpoints and the text last.",
    "run.ambiguous": "A short name may mean several runs. → Write more of it; lossprobe runs lists short names.",
    "run.missing": "The folder is no run, or is a pair of runs. → Name a run; a checkpoint needs a text after it.",
    "run.several": "The folder holds runs and is none. → Name one of those that the message lists.",
    "run.none": "No run is stored in this folder yet. → Score first: lossprobe score CHECKPOINT TEXT.",
}

OUTPUT = {
    "output.closed": "Standard output is closed. → Do not close it (>&-); use >/dev/null.",
    "output.exists": "The file exists. → Choose another place with -o.",
    "output.foreign": "The folder exists and is no run, or no pair of runs. → Move it away, or choose another place "
    "with -o for the run of one model.",
    "output.gone": "The run, or pair of runs, was removed or replaced while it was written: its folder, its objects in "
    "the bucket, or one of its files. → Do what the hint says: mostly, repeat the command.",
    "output.link": "A folder or file of lossprobe is a symbolic link, which is never followed. → Remove the link.",
    "output.locked": "Another process is writing to this place. → Wait until it has ended.",
    "output.no_folder": "There is no folder for temporary files that can be written. → Set TMPDIR (or HOME).",
    "output.other_settings": "The place holds a run with other settings. → Use another -o, or --overwrite.",
    "output.write": "The output cannot be written: no permission, no space, or a failing disk. → Check permissions "
    "and free space.",
    "run.damaged": "A file of a run, or of a pair of runs, is missing, or not what its hash says. → Score or compare "
    "again with --overwrite, or remove the folder.",
    "run.gone": "The run, or pair of runs, was removed or replaced after the command had opened it, such as while the "
    "next model was scored. → Repeat the command.",
    "run.name": "The folder of a run has a name that is not UTF-8. → Rename it.",
    "run.not_finite": f"A stored number is NaN or infinite, which scoring never writes. → {VERIFY}",
    "run.schema": "The run was stored by another version with other columns. → Score again.",
    "run.unreachable": "A run on object storage cannot be read: no connection, no permission, or no such bucket. → "
    "Check the address, AWS_REGION, AWS_ENDPOINT_URL and the credentials.",
    "run.unfinished": "The run, or pair of runs, is not finished. → Repeat the command that made it to resume it; of "
    "shards, those that gather names.",
    "shard.measured": "The run was planned where the model runs with other code or on another kind of device, so that "
    "parts would differ in the last digits. → Run all shards on machines of one kind.",
    "shard.other_count": "The run is divided among another number of shards. → Go on with that number, or finish it "
    "without --shard.",
}

DIFFERENT = {
    "preferences.other_tokenizer": "The reference's tokenizer gives other tokens, or puts another BOS first. → Take a "
    "reference with the same tokenizer.",
    "runs.different": f"The runs differ in what must be equal: text, tokens, windows or BOS. → {SCORE_BOTH} Or, with "
    "the same tokens of one text, look anyway with --allow-different.",
    "runs.different_text": f"The runs did not score the same text. → {SCORE_BOTH}",
    "runs.different_tokens": f"The runs did not score the same tokens. → {SCORE_BOTH}",
    "runs.different_vocabulary": "A divergence needs ids that mean the same in both models. → Compare their losses, "
    "without --kl.",
    "runs.no_common_bytes": "No byte of the text was scored by both models. → Check that both runs scored the same "
    "text.",
}

NOTHING = {
    "preferences.nothing_ranked": "No pair can be ranked: each has equal sides, or a side without scored tokens. → "
    "Look at the records that the message counts, and at --score and --truncate.",
}

MEMORY = {
    "run.memory": "A query on a run needs more memory than it may use. → Free memory, or run the command on a larger "
    "machine."
}

ERROR_IDS = (
    *error_ids(2, USAGE),
    *error_ids(5, NOTHING),
    *error_ids(6, OUTPUT),
    *error_ids(12, DIFFERENT),
    *error_ids(7, MEMORY),
)
