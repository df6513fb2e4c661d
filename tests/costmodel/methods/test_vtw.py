"""VTW: its published layers."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_vtw_withdraws_at_layer_20_of_40(plan_of, llm_tokens) -> None:
    assert llm_tokens(plan_of("llava-1.5-13b", method="vtw")) == [576] * 20 + [0] * 20
