"""The training engine: recipes, exact resumption, processes, objectives.

`train_recipe` and `evaluate_split` load on first use, so that recipes can be
read without torch.
"""

__all__ = ["evaluate_split", "train_recipe"]


def __getattr__(name: str):
    if name == "train_recipe":
        from captionlib.engine.runs import train_recipe

        return train_recipe
    if name == "evaluate_split":
        from captionlib.engine.evaluation import evaluate_split

        return evaluate_split
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
