"""The page Compare: measures by arm, curves with spread, settings that differ, the same images side by side."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from smoe_ray.errors import ResultsError
from smoe_ray.results import Store, TrialFolder, read_embeddings, read_results
from smoe_ray_dashboard.pages.compare import charts, data
from support.planted_folder import plant

Open = Callable[..., AppTest]
Said = Callable[[AppTest], str]


def test_arms_are_compared_by_mean_and_spread_over_their_trials(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", experts=(4,), ends=[{"status": "failed", "error": "why"}])
    chosen = [record.trial_id for record in records]  # three of blend, whose first has failed, and of likelihood
    at = open_page("compare", out, study="demo", trials=chosen)
    last = read_results(out, "demo").drop_duplicates("trial_id", keep="last").set_index("trial_id")
    loss = last["test.reconstruction"]
    means = {"blend": loss[chosen[1:3]], "likelihood": loss[chosen[3:]]}
    (first, second) = sorted(means, key=lambda arm: float(means[arm].mean()))
    assert (
        f"Lowest test loss: {first}, {means[first].mean():.2f} (mean of {len(means[first])} trials); "
        f"then {second}, {means[second].mean():.2f} (mean of {len(means[second])} trials)." in said(at)
    )
    table = at.dataframe[0].value.set_index("arm")
    for arm, of in means.items():
        assert table.loc[arm, "test loss"] == f"{of.mean():.2f} ± {of.std(ddof=1):.2f}"
        assert table.loc[arm, "n"] == str(len(of))
    curves = data.curves("demo", tuple(chosen), "test.reconstruction")
    assert [(arm.label, arm.n.tolist()) for arm in curves.arms] == [("blend", [2] * 4), ("likelihood", [3] * 4)]
    for arm in curves.arms:
        assert arm.mean[-1] == means[arm.label].mean()
        assert arm.sd[-1] == pytest.approx(means[arm.label].std(ddof=1))
    drawn = charts.curves(curves, each_trial=True)
    assert [trace.name for trace in drawn.data if trace.name] == ["blend (n = 2)", "likelihood (n = 3)"]
    assert len(drawn.data) == 2 + 2 + 5  # means, bands, trials


def test_only_settings_that_differ_are_listed_until_all_are_asked_for(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", seeds=1)  # likelihood or blend, 4 or 8 experts
    chosen = [record.trial_id for record in records[:2]]
    at = open_page("compare", out, study="demo", trials=chosen, compare="Configuration")
    differing = at.dataframe[0].value.set_index("setting")
    assert list(differing.index) == ["model.num_experts"]
    assert sorted(differing.iloc[0]) == ["4", "8"]
    at.toggle(key="differences").set_value(False).run()
    every = at.dataframe[0].value.set_index("setting")
    assert every.loc["objective.name"].tolist() == ["blend", "blend"]
    assert every.loc["training images"].tolist() == ["300", "300"]


def test_the_images_are_the_same_test_images_with_each_trials_own_error(open_page: Open, out: Path) -> None:
    records = plant(out, "demo", objectives=("blend",), experts=(4, 8), seeds=1)
    ours, theirs = (record.trial_id for record in records)
    stored = {trial: dict(read_embeddings(out, "demo", trial)) for trial in (ours, theirs)}
    open_page("compare", out, study="demo")
    with pytest.raises(ResultsError, match="no trial to show"):
        data.reconstructions("demo", (), False, 4)
    [line] = data.reconstructions("demo", (ours, theirs), False, 4).left_out
    assert "E=8, seed 0: other test images" in line
    folder = TrialFolder(Store(out), "demo", theirs)
    folder.write_embeddings(stored[theirs] | {"image": stored[ours]["image"]})
    open_page("compare", out, study="demo")
    found = data.reconstructions("demo", (ours, theirs), True, 4)
    assert not found.left_out
    given = np.float64(stored[ours]["image"]) / 255
    made = np.stack([np.float64(stored[trial]["reconstruction"]) for trial in (ours, theirs)])
    errors = np.square(given - made / (255 if stored[ours]["reconstruction"].dtype == np.uint8 else 1)).sum(axis=(2, 3))
    farthest = np.argsort(-abs(errors[0] - errors[1]), kind="stable")[:4]
    np.testing.assert_array_equal(found.index_N, farthest)
    for trial, error in zip(found.trials, errors, strict=True):
        np.testing.assert_allclose(trial.error_N, error[farthest], rtol=1e-5, atol=1e-6)
    shown = charts.images(found)
    assert len(re.findall("<img ", shown)) == 3 * 4
    assert f"<br>{errors[0][farthest[0]]:.1f}</td>" in shown


def test_a_trial_that_is_gone_is_said_beside_those_that_are_there(open_page: Open, out: Path, said: Said) -> None:
    records = plant(out, "demo", embeddings=False)
    chosen = [record.trial_id for record in records[:2]]
    shutil.rmtree(out / "demo" / "trials" / chosen[0])
    at = open_page("compare", out, study="demo", trials=chosen)
    assert f"Trials: '{chosen[0]}' is not here any more" in said(at)
    assert at.multiselect(key="trials").value == chosen[1:]
    for view in ("Configuration", "Usage", "Reconstructions"):  # with one trial alone
        assert not open_page("compare", out, study="demo", trials=chosen, compare=view).error
