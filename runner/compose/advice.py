"""What to say of an override that cannot be used: the one that does what was meant."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

from runner.base.errors import nearest
from runner.compose import presets

# What other programs call it, and the key with the same values here.
SYNONYMS = {
    "algo": "algorithm", "method": "algorithm", "optim": "algorithm", "optimiser": "algorithm",
    "learning_rate": "algorithm.optimizer.lr", "wd": "algorithm.optimizer.weight_decay",
    "scheduler": "algorithm/schedule", "lr_scheduler": "algorithm/schedule", "criterion": "algorithm/loss",
    "bs": "workload.batch_size", "batchsize": "workload.batch_size",
    "train_batch_size": "workload.batch_size",
    "dataset": "workload", "data": "workload", "task": "workload", "problem": "workload",
    "seed": "study", "random_seed": "study", "studies": "ruleset.studies",
    "trials": "ruleset.trials", "n_trials": "ruleset.trials", "tuning_ruleset": "ruleset",
    "exp": "+experiment", "experiments": "+experiment", "config": "+experiment",
    "exp_name": "name", "run_name": "name", "experiment_name": "name",
    "output_dir": "results_dir", "out_dir": "results_dir", "output": "results_dir", "save_dir": "results_dir",
    "data_path": "data_dir", "data_root": "data_dir", "root": "data_dir",
    "logger": "log", "launcher": "hydra/launcher", "num_workers": "workers", "n_jobs": "workers",
    "jobs": "workers", "num_threads": "threads",
}  # fmt: skip
# Those whose values mean something else here.
OTHER_UNITS = {
    "seeds": "-m study=0,1,2", "n_seeds": "-m study=0,1,2", "num_seeds": "-m study=0,1,2",
    "epochs": "workload.budget_samples=<samples>", "num_epochs": "workload.budget_samples=<samples>",
    "max_epochs": "workload.budget_samples=<samples>", "steps": "workload.budget_samples=<samples>",
    "max_steps": "workload.budget_samples=<samples>", "num_steps": "workload.budget_samples=<samples>",
    "iterations": "workload.budget_samples=<samples>", "budget": "workload.budget_samples=<samples>",
    "gpu": "device=cuda", "gpus": "device=cuda", "cuda": "device=cuda",
    "amp": "workload.precision=bf16", "bf16": "workload.precision=bf16", "fp16": "workload.precision=bf16",
    "wandb": "log=wandb", "grad_clip": "algorithm/transform=[clip_norm]",
    "debug": "hydra/launcher=inline", "early_stopping": "stop_at_target=true",
}  # fmt: skip
NO_SETTINGS = {"search_space", "bounds"}
# Characters that word processors and other keyboards put in place of those that Hydra reads.
LOOKALIKES = str.maketrans("−–—“”‘’，＝：\u00a0", "---\"\"'',=: ")


def unknown(key: str, known: Collection[str], value: Any = None) -> str:
    """What to say of an unknown key.

    Args:
        key: as it was given.
        known: dotted keys that there are.
        value: what it was set to, in the spelling of an override; None where nobody knows.
    """
    return f"unknown key {key!r}: {_meant(key, known, '' if value is None else f'={value}')}"


def _meant(key: str, known: Collection[str], assigned: str) -> str:
    name = key.rpartition(".")[2].lower().replace("-", "_")
    if key.replace(".", "/").removeprefix("algorithm/") in presets.kinds() and "." in key:
        return _did_you_mean(f"{key.replace('.', '/')}{assigned}")
    ends = sorted(k for k in known if k.endswith(f".{name}") and not NO_SETTINGS & {*k.split(".")})
    if ends and ("." in key or name not in {*OTHER_UNITS, *SYNONYMS}):
        return _did_you_mean(*(end + assigned for end in ends[:3]))
    if name == "optimizer":
        return _did_you_mean(f"algorithm{assigned}", f"algorithm/optimizer{assigned}")
    if name in presets.kinds():
        return _did_you_mean(f"algorithm/{name}{assigned}")
    if name in OTHER_UNITS:
        return f"did you mean {OTHER_UNITS[name]}?"
    if name in SYNONYMS:
        return _did_you_mean(SYNONYMS[name] + assigned)
    parent = key.rpartition(".")[0]
    settable = [k for k in known if not k.endswith("_target_")]
    return nearest(key, [k for k in settable if k.rpartition(".")[0] == parent] or settable)


def _did_you_mean(*keys: str) -> str:
    return f"did you mean {', or '.join(map(shlex.quote, keys))}?"


def unreadable(override: str) -> str:
    """What to say of an override that is none by Hydra's grammar."""
    plain = override.translate(LOOKALIKES)
    key, assigned, value = plain.partition("=")
    if plain != override:
        odd = next(a for a, b in zip(override, plain, strict=True) if a != b)
        return f"{override}: {odd!r} is not {chr(LOOKALIKES[ord(odd)])!r}: write {shlex.quote(plain)}"
    if not assigned:
        return _no_assignment(override)
    if key.startswith("-"):
        return f"{override}: settings take no dashes: write {shlex.quote(override.lstrip('-'))}"
    if value.startswith("(") and value.endswith(")"):
        return f"{override}: lists are written in square brackets: '{key}=[{value[1:-1]}]'"
    if value.endswith(","):
        return f"{override}: remove the trailing comma: {shlex.quote(plain.rstrip(','))}"
    return f"{override}: quote the value: write {_in_shell(key, value)}"


def unknown_flag(flag: str, following: str = "") -> str:
    """What to say of a flag that is none of Hydra's; ``following`` is the next argument."""
    setting = flag.lstrip("-")
    if "=" not in setting and following and "=" not in following and not following.startswith("-"):
        setting += f"={following}"
    shown = f": write {shlex.quote(setting)}" if "=" in setting else ""
    return f"unknown flag {flag}: settings are key=value, without dashes{shown}"


def other_launcher(name: str) -> str:
    """What to say of a launcher of another plugin, which would run jobs as Hydra does."""
    ours = "slurm" if "slurm" in name else "local, slurm or inline"
    return f"hydra/launcher={name}: cells run with hydra/launcher={ours}"


def other_sweeper(name: str) -> str:
    """What to say of a sweeper of another plugin."""
    return (
        f"hydra/sweeper={name}: grids are swept by -m key=a,b, grid: or ruleset=external_tuning; "
        "a tuner of your own calls runner.run() from Python"
    )


def swept(override: str) -> str:
    """What to say of several values without ``-m``."""
    key, _, value = override.partition("=")
    wanted = f"{SYNONYMS.get(key, key)}={value}"
    if "." not in wanted.partition("=")[0] and key not in ("label", "name"):
        return f"{override}: several values make a grid: write -m {shlex.quote(wanted)}"
    return (
        f"{override}: several values make a grid: write -m {shlex.quote(wanted)}; "
        f"a list is '{key}=[{value}]', text with a comma {_in_shell(key, value)}"
    )


def quoted(text: str) -> str:
    """Text as Hydra's grammar quotes it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _in_shell(key: str, value: str) -> str:
    """An override with its value quoted, for Hydra and for a shell."""
    whole = f"{key}={quoted(value)}"
    return f'"{whole}"' if not set(whole) & set('"$`\\!') else shlex.quote(whole)


def _no_assignment(text: str) -> str:
    for separator in (":", " "):
        key, found, value = text.partition(separator)
        if found and key:
            return f"{text}: write {shlex.quote(f'{key}={value.strip()}')}"
    for group, names in (("algorithm", presets.algorithms()), ("workload", presets.workloads())):
        if text in names:
            return f"{text}: write {group}={text}"
    return f"{text!r}: settings are key=value, as in algorithm=lion"
