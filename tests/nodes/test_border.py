def test_the_border_leaves_comfyui_as_it_was(in_comfyui):
    assert in_comfyui("border.py") == "held"
