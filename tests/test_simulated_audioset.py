"""simulated-audioset: outputs as good as published by class, planted noise, and files larger than the memory used."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from avrepro.corpora import audioset, simulated
from avrepro.corpora.base import CorpusError
from avrepro.corpora.simulated import SimulatedOutputs, simulate, split_sizes, streamed_moments
from avrepro.fetch import FetchError

LARGE_TEST = {"train": 1, "validation": 1, "test": 10}
CLIPS = {"train": 2000, "validation": 2000, "test": 20_000}  # of 24,000


@pytest.fixture(scope="module")
def cache(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache; tests that ask for it need the mirror's published values and are skipped without."""
    folder = tmp_path_factory.mktemp("simulated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def outputs(cache: Path) -> SimulatedOutputs:
    return simulate(24_000, seed=0, splits=LARGE_TEST)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(cache: Path) -> set[Path]:
    """All that is in the folder of simulated outputs but locks."""
    return {path for path in (cache / "simulated").iterdir() if path.suffix != ".lock"}


# --- without the published values ------------------------------------------------------------------------------------


def test_expected_average_precision_is_that_of_drawn_scores() -> None:
    separation, share, clips = np.array([0.0, 1.0, 2.5, 4.0]), np.array([0.05, 0.3, 0.004, 0.01]), 1500
    random, found = np.random.default_rng(0), []
    while len(found) < 600:
        labels = random.random((clips, 4)) < share
        if labels.any(axis=0).all():
            noise = random.choice([0.8, 1.0, 1.25], (clips, 1))
            scores = labels * separation + noise * random.standard_normal((clips, 4))
            found.append(average_precision_score(labels, scores, average=None))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    expected = simulated.expected_average_precision(separation, share, clips)
    assert (np.abs(np.mean(found, axis=0) - expected) < 3.5 * error + 0.005).all()  # Poisson, for six clips of a class
    without = simulated.expected_average_precision(np.zeros(3), np.array([0.01, 0.2, 0.5]), 10_000_000)
    assert without == pytest.approx([0.01, 0.2, 0.5], abs=1e-4)  # chance


def test_training_list_is_as_uneven_as_the_papers() -> None:
    counts = np.random.default_rng(0).integers(59, 6000, 527)
    counts[[100, 7, 8]] = 9000, 20, 20
    shares = simulated.training_shares(counts)
    assert shares[100] == shares.max() == pytest.approx(1_000_000 / 2_000_000)
    assert shares[8] == shares.min() == pytest.approx(120 / 2_000_000) and shares[7] > shares[8]
    assert shares.sum() == pytest.approx(2.7)
    assert spearmanr(counts, shares).statistic > 0.9999


def test_sizes_of_splits() -> None:
    assert split_sizes(2_045_000) == {"train": 2_000_000, "validation": 25_000, "test": 20_000}
    assert split_sizes(60_000) == {"train": 56_000, "validation": 2000, "test": 2000}
    assert split_sizes(1000) == {"train": 500, "validation": 250, "test": 250}
    assert split_sizes(24_000, LARGE_TEST) == CLIPS
    with pytest.raises(CorpusError, match=r"1000 simulated clips or more .* found 999"):
        split_sizes(999)
    with pytest.raises(CorpusError, match="shares of train, validation, test, each above 0, found"):
        split_sizes(5000, {"train": 1, "test": 1})
    with pytest.raises(CorpusError, match="5000 clips leave 0 for training, fewer than 1250"):
        split_sizes(5000, {"train": 1e-9, "validation": 1, "test": 1})


@pytest.mark.parametrize("block", [1, 7, 1000, 2048])
def test_streamed_moments_are_those_of_all_rows(tmp_path: Path, block: int) -> None:
    random = np.random.default_rng(1)
    rows = random.random((1000, 5)) ** 8
    rows[:, 3] = 30_000 + 16 * random.integers(0, 2, 1000)  # sums of squares in single precision lose this spread
    rows[:, 4] = 0.25
    np.save(tmp_path / "rows.npy", rows.astype(np.float16))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    mean, deviation = streamed_moments(rows, block)
    assert mean.dtype == deviation.dtype == np.float64
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(deviation, rows.astype(np.float64).std(axis=0), rtol=1e-12, atol=1e-15)


def test_published_values_that_are_not_at_hand_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    with pytest.raises(FetchError, match=r"ast_per_class/full_last_epoch\.csv has no public address.* Put it at"):
        simulate(1000)
    assert not made(tmp_path)


# --- with them -------------------------------------------------------------------------------------------------------


def test_arrays_are_as_described(outputs: SimulatedOutputs) -> None:
    assert outputs.classes == audioset.classes() and list(outputs.splits) == list(CLIPS)
    for split, clips in CLIPS.items():
        part = outputs.splits[split]
        for array, dtype in ((part.audio, "float16"), (part.visual, "float16"), (part.targets, "uint8")):
            assert isinstance(array, np.memmap) and not array.flags.writeable
            assert array.shape == (clips, 527) and array.dtype == dtype
            assert array.min() >= 0 and array.max() <= 1
        assert part.noise.shape == (clips, 2) and part.noise.dtype == np.float32
        assert set(np.unique(part.targets)) == {0, 1}
        assert part.targets.sum(axis=0).min() >= 4


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_average_precision_is_as_expected(outputs: SimulatedOutputs, modality: str) -> None:
    test, classes = outputs.splits["test"], np.arange(0, 527, 3)
    scores = getattr(test, modality)[:, classes].astype(np.float32)
    labels = test.targets[:, classes]
    found = average_precision_score(labels, scores, average=None)
    expected = outputs.by_class[f"{modality}_expected"].to_numpy()[classes]
    target = outputs.by_class[f"{modality}_target"].to_numpy()[classes]
    assert np.abs(expected - target).max() < 0.02  # 20,000 clips are nearly the list's 20,371
    sampling = np.sqrt(expected * (1 - expected) / labels.sum(axis=0))  # about, and above the true error
    assert (np.abs(found - expected) < 4.5 * sampling).all()
    assert found.mean() == pytest.approx(expected.mean(), abs=0.015)
    assert np.corrcoef(found, expected)[0, 1] > 0.9


def test_targets_follow_what_was_published(outputs: SimulatedOutputs, mirror: Path) -> None:
    rows = (mirror / "audioset/ast_per_class/full_last_epoch.csv").read_text().split()[1:]
    published = np.array([float(row.split(",")[1]) for row in rows])
    audio, visual = outputs.by_class["audio_target"], outputs.by_class["visual_target"]
    assert (audio.mean(), visual.mean()) == (pytest.approx(0.3835), pytest.approx(0.2573))  # Table 2
    assert spearmanr(audio, published).statistic > 0.99 and (audio < published).all()
    assert 0.3 < spearmanr(audio, visual).statistic < 0.9
    assert 90 < (visual > audio).sum() < 145  # 117 in section 5.1


def test_classes_are_as_common_as_in_the_evaluation_list(outputs: SimulatedOutputs, mirror: Path) -> None:
    names = audioset.read_classes(mirror / "audioset/class_labels_indices.csv")
    lines = (mirror / "audioset/eval_segments.csv").read_text().splitlines()[3:]
    listed = Counter(one for line in lines for one in line.split('"')[1].split(","))
    expected = 20_000 / len(lines) * np.array([listed[identifier] for identifier in names])
    found = outputs.splits["test"].targets.sum(axis=0, dtype=np.int64)
    assert (np.abs(found - expected) < 5 * np.sqrt(expected)).all()
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    train = outputs.splits["train"].targets.mean(axis=0)
    assert train[outputs.classes.index("Music")] == pytest.approx(0.5, abs=0.05)


def test_planted_noise_is_in_the_outputs(outputs: SimulatedOutputs) -> None:
    test = outputs.splits["test"]
    names, ways = np.unique(test.noise, axis=0, return_counts=True)
    assert len(names) == 9 and (np.abs(ways / 20_000 - 1 / 9) < 0.012).all()  # both, independent of each other
    errors = {}
    for column, modality in enumerate(("audio", "visual")):
        table = outputs.by_class[[f"{modality}_centre", f"{modality}_separation"]].to_numpy().T
        score = logit(getattr(test, modality)[:, ::5].astype(np.float64)) + table[0, ::5]
        errors[modality] = score - test.targets[:, ::5] * table[1, ::5]
        for level in (0.8, 1.0, 1.25):
            of_level = errors[modality][test.noise[:, column] == np.float32(level)]
            assert of_level.std() == pytest.approx(level, rel=0.01) and abs(of_level.mean()) < 0.01
    together = np.corrcoef(errors["audio"].ravel(), errors["visual"].ravel())[0, 1]
    assert together == pytest.approx(
        0.75 * np.mean([0.8, 1.0, 1.25]) ** 2 / np.mean(np.square([0.8, 1.0, 1.25])), abs=0.01
    )


def test_a_seed_and_not_the_blocks_decides_every_byte(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = made(cache)
    first, other = simulate(1200, seed=3), simulate(1200, seed=4)
    folders = {folder.name: contents(folder) for folder in made(cache) - before}
    assert len(folders) == 2 and first.digest != other.digest
    one, two = folders[first.digest[:16]], folders[other.digest[:16]]
    assert len(one) == 13 and all(one[name] != two[name] for name in one)
    assert (first.by_class["audio_target"] == other.by_class["audio_target"]).all()
    assert (first.by_class["visual_target"] != other.by_class["visual_target"]).any()

    capfd.readouterr()
    again = simulate(1200, seed=3)
    assert capfd.readouterr().err == "" and again.digest == first.digest  # found, not made
    for block in (7, 128):  # an odd one too: halves of random words are not lost between blocks
        monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / str(block)))
        simulate(1200, seed=3, block=block)
        assert contents(tmp_path / str(block) / "simulated" / first.digest[:16]) == one


def test_files_that_changed_and_a_full_disk_are_told(cache: Path) -> None:
    digest = simulate(1000, seed=9).digest
    path = cache / "simulated" / digest[:16] / "validation_visual.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorpusError, match=f"{digest[:16]} is not as it was written .*delete it"):
        simulate(1000, seed=9)
    path.unlink()
    with pytest.raises(CorpusError, match=r"validation_visual\.npy.*delete it"):
        simulate(1000, seed=9)
    before = made(cache)
    with pytest.raises(CorpusError, match=r"are free, simulated outputs of 1000000000000 clips take .* GB\. Make room"):
        simulate(10**12)
    assert made(cache) == before


INTERRUPTED = """
import signal
from avrepro.corpora.simulated import simulate
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
simulate(50_000, seed=11)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_outputs_are_not_half_there(cache: Path, how: signal.Signals) -> None:
    before = made(cache)
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(
            path.stat().st_size > 1_000_000 for path in (cache / "simulated").glob(".partial-*/train_audio.npy")
        ):
            time.sleep(0.005)
        process.send_signal(how)
        assert process.wait(30) == -how
    left = made(cache) - before
    if how == signal.SIGINT:
        assert not left
        return
    assert [path.name.startswith(".partial-") for path in left] == [True]
    whole = simulate(50_000, seed=11)
    assert [path.name for path in made(cache) - before] == [whole.digest[:16]]
    assert whole.splits["train"].targets.sum(axis=0).min() >= 4


MEMORY = """
import resource
import numpy as np
from avrepro.corpora.simulated import simulate, streamed_moments

simulate(1000)  # what reading the lists takes is not meant
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outputs = simulate(60_000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)

# Pages of a read-only map can be dropped at any time and are no data in this sense; all that is allocated is.
data = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (data + 50_000_000, resource.RLIM_INFINITY))
audio = outputs.splits["train"].audio
print(streamed_moments(audio)[0].mean())
try:
    np.array(audio)
except MemoryError:
    print("too large")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told apart by Linux's own means")
def test_outputs_larger_than_the_memory_used(cache: Path) -> None:
    told = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout.split("\n")
    whole = simulate(60_000)
    size = sum(file.stat().st_size for file in (cache / "simulated" / whole.digest[:16]).iterdir())
    assert size > 158_000_000 and int(told[0]) < 50_000_000
    assert float(told[1]) == pytest.approx(whole.splits["train"].audio.mean(dtype=np.float64))
    assert told[2] == "too large"
