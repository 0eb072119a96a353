from dataclasses import replace

from resnetlab.report.diagnosis.paths import describe_paths, draw, path_figure
from tests.made import diagnosis, path_result


def along(paths, before=None):
    """A diagnosis with those paths, and those before training."""
    found = diagnosis()
    return replace(found, net=replace(found.net, paths=paths), initial=before and replace(found.initial, paths=before))


def test_drawing_shows_mean_and_range_and_is_the_same_each_time():
    (first,) = draw(along(path_result()))
    assert [first] == draw(along(path_result()))
    assert "mean, 2.0" in first.svg.decode()
    assert "before training" not in first.svg.decode()
    assert "Mean length 2.0; 95 % of the gradient goes through 0 to 4 branches." in first.description
    assert "before training" in draw(along(path_result(), path_result()))[0].svg.decode()


def test_one_block_and_no_gradient_are_drawn():
    assert draw(along(path_result(blocks=1)))[0].svg
    (drawing,) = draw(along(path_result(known=False)))
    assert "No gradient arrives" in drawing.description
    assert "mean," not in drawing.svg.decode()


def test_net_before_its_training_is_drawn_beside_it_and_told():
    figure = path_figure(path_result(), path_result(blocks=4))
    dotted = [line for axes in figure.axes for line in axes.lines if line.get_label() == "before training"]
    assert [list(line.get_xdata()) for line in dotted] == [[0, 1, 2, 3, 4]] * 2
    assert "Before training: mean length 1.3, 0 to 4 branches." in describe_paths(path_result(), path_result(blocks=4))
    assert "Before" not in describe_paths(path_result(), path_result(known=False))
