"""ATS: the count expected without keep."""

MODEL, A100 = "llava-1.5-7b", "nvidia-a100-sxm4-80gb"


def test_ats_expects_a_quarter_by_default(plan_of) -> None:
    assert plan_of(method="ats").projected_tokens == 144
