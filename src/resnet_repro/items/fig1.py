"""Fig. 1, the degradation: of plain nets the deeper has the higher training and test error."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from resnet_repro.analysis import curves, style
from resnet_repro.analysis.logged_run import Run
from resnet_repro.analysis.protocol import cifar_nets


@style.style()
def fig1(runs: Sequence[Run]) -> Figure:
    """Fig. 1: training error (left) and test error (right) of plain nets, the paper's 20 and 56.

    The mean over seeds is drawn with a band from the lowest to the highest seed.
    """
    nets = cifar_nets(runs, "plain")
    shown = [run for net in nets.values() for run in net]
    unit = curves.iter_unit(shown)
    figure, (left, right) = style.subplots(1, 2, sharey=True)
    for axes, kind, title in ((left, "train", "training"), (right, "test", "test")):
        for net in nets.values():
            curves.draw_net(axes, net, kind, style.TEST, unit)
            if curves.comparable(shown):
                curves.draw_paper(axes, 1, net[0], kind, style.PAPER_TEST)
        curves.name_missing(axes, nets, ("plain-20", "plain-56"))
        axes.set_title(f"{title} error")
    left.set_ylabel("error (%)")
    right.tick_params(labelleft=True)
    curves.set_limits([left, right], shown)
    return style.underneath(figure, curves.sentences(shown), left)
