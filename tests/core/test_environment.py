from resnetlab.core.environment import describe_environment


def test_environment_says_what_a_figure_depends_on():
    found = describe_environment("cpu", 2)
    assert found["torch"][0].isdigit()
    assert (found["device"], found["threads"]) == ("cpu", 2)
    assert found["processor"]
