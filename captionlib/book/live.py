"""Interactive outputs that ask the kernel: a captioner with sliders and a
photograph of your own, and a choice of views.

A page without a kernel shows the first view.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from captionlib.book.views import View, attention_view
from captionlib.captioner import Captioner
from captionlib.io.files import InputError
from captionlib.io.images import open_rgb

__all__ = ["LiveCaptioner", "LiveChoice"]


class _Live:
    """A widget where one can be shown, elsewhere the view `still`."""

    still: View

    def __repr__(self) -> str:
        return repr(self.still)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The widget where it can be shown, else the static view."""
        bundle = {
            "text/plain": repr(self),
            "text/html": self.still._repr_html_(),
        }
        try:
            widget = self.widget()
        except ImportError:  # without ipywidgets, only the static view
            return bundle
        if "google.colab" in sys.modules:  # Colab would prefer the static view
            del bundle["text/html"]
        return (
            bundle
            | widget._repr_mimebundle_(include=include, exclude=exclude)
            | {"text/plain": repr(self)}
        )

    def _shown(self):
        """An output widget that shows `still`, until it is cleared."""
        import ipywidgets as widgets

        data = {
            "text/html": self.still._repr_html_(),
            "text/plain": repr(self.still),
        }
        first = {"output_type": "display_data", "data": data, "metadata": {}}
        return widgets.Output(outputs=(first,))


class LiveChoice(_Live):
    """One view of many, chosen from a list; the first in a static page.

    Args:
        label: what is chosen.
        views: for each name, a function that makes its view.
    """

    def __init__(self, label: str, views: Mapping[str, Callable[[], View]]):
        self.label, self.views = label, dict(views)
        self.still = next(iter(self.views.values()))()

    def widget(self):
        """The list and the view, as one ipywidget."""
        import ipywidgets as widgets
        from IPython.display import display

        choice = widgets.Dropdown(
            options=list(self.views), description=self.label
        )
        shown = self._shown()

        def update(change):
            view = self.views[change["new"]]()
            shown.clear_output(wait=True)
            with shown:
                display(view)

        choice.observe(update, names="value")
        return widgets.VBox([choice, shown])


class LiveCaptioner(_Live):
    """Caption a photograph by beam search, or by sampling at a temperature.

    Args:
        captioner: what writes the captions.
        image: the photograph to begin with, as `read_image` takes it.

    `still` is the attention view of `image` with the captioner's own settings.
    """

    def __init__(self, captioner: Captioner, image):
        self.captioner, self.image = captioner, open_rgb(image)
        self.still = self.view()

    def view(
        self,
        *,
        beam_size: int | None = None,
        temperature: float = 0,
        seed: int = 0,
    ) -> View:
        """Caption the photograph, and show where it looked.

        Args:
            beam_size: of the search; None leaves the captioner's setting.
            temperature: above 0, draw each word at random instead of searching.
            seed: decides the draws.
        """
        # At least one word, or there would be nothing to look at.
        search = replace(
            self.captioner.search,
            min_words=max(1, self.captioner.search.min_words),
        )
        if temperature > 0:
            search = replace(
                search,
                beam_size=1,
                groups=1,
                sample=True,
                temperature=temperature,
            )
        elif beam_size is not None:
            search = replace(search, beam_size=beam_size, groups=1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            caption = Captioner(self.captioner.model, search).caption(
                self.image
            )
        return attention_view(caption, self.image)

    def widget(self):
        """The sliders, the upload button and the view, as one ipywidget."""
        import ipywidgets as widgets
        from IPython.display import display

        style = {
            "style": {"description_width": "7em"},
            "continuous_update": False,
        }
        way = widgets.ToggleButtons(
            options=["beam search", "random words"],
            description="It writes by",
            style=style["style"],
        )
        beam = widgets.IntSlider(
            value=min(self.captioner.search.beam_size, 10),
            min=1,
            max=10,
            description="beam size",
            **style,
        )
        heat = widgets.FloatSlider(
            value=0.7,
            min=0.1,
            max=2,
            step=0.1,
            description="temperature",
            disabled=True,
            **style,
        )
        again = widgets.Button(description="Draw again", disabled=True)
        upload = widgets.FileUpload(
            accept="image/*", multiple=False, description="Your photo"
        )
        shown = self._shown()
        draws = 0

        def update(_=None):
            drawn = way.value == "random words"
            beam.disabled = drawn
            heat.disabled = not drawn
            again.disabled = not drawn
            settings = (
                {"temperature": heat.value, "seed": draws} if drawn else {}
            )
            view = self.view(beam_size=beam.value, **settings)
            shown.clear_output(wait=True)
            with shown:
                display(view)

        def redraw(_):
            nonlocal draws
            draws += 1
            update()

        def take(change):
            if not change["new"]:
                return
            try:
                file = change["new"][0]
                self.image = open_rgb(io.BytesIO(file["content"]), file["name"])
            except InputError as error:
                shown.clear_output(wait=True)
                with shown:
                    print(error)
                return
            update()

        for slider in (way, beam, heat):
            slider.observe(update, names="value")
        again.on_click(redraw)
        upload.observe(take, names="value")
        return widgets.VBox(
            [way, beam, widgets.HBox([heat, again]), upload, shown]
        )
