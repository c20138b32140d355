"""The training engine: recipes, exact resumption, processes, objectives.

Names load on first use, so that recipes can be read without torch.
"""

from importlib import import_module

HOMES = {
    "Processes": "processes",
    "SelfCritical": "self_critical",
    "WeightAverage": "averaging",
    "evaluate_split": "evaluation",
    "make_loader": "batches",
    "prepare_data": "preparation",
    "teacher_forcing": "objectives",
    "train": "loop",
    "train_one_epoch": "loop",
    "train_recipe": "runs",
}
__all__ = sorted(HOMES)


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
