from resnetlab.report.diagnosis.paths import describe_paths, draw_paths, path_figure
from tests.made import path_reading


def test_drawing_shows_mean_and_range_and_is_the_same_each_time():
    first = draw_paths(path_reading())
    assert first == draw_paths(path_reading())
    assert "mean, 2.0" in first.svg.decode()
    assert "Mean length 2.0; 95 % of the gradient takes 0 to 4 branches." in first.description
    assert first.png.startswith(b"\x89PNG")


def test_one_block_and_no_gradient_are_drawn():
    assert draw_paths(path_reading(blocks=1)).svg
    drawing = draw_paths(path_reading(known=False))
    assert "No gradient arrives" in drawing.description
    assert "mean," not in drawing.svg.decode()


def test_net_before_its_training_is_drawn_beside_it_and_told():
    figure = path_figure(path_reading(), path_reading(blocks=4))
    dotted = [line for axes in figure.axes for line in axes.lines if line.get_label() == "before training"]
    assert [list(line.get_xdata()) for line in dotted] == [[0, 1, 2, 3, 4]] * 2
    assert "Before training: mean length 1.3, 0 to 4 branches." in describe_paths(
        path_reading(), path_reading(blocks=4)
    )
    assert "Before" not in describe_paths(path_reading(), path_reading(known=False))
