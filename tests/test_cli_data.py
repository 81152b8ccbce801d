"""``avrepro data``: what it prints and how it ends."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from avrepro import manifests
from avrepro.cli import main


def run(*words: str) -> int:
    """One ``avrepro data`` command; its exit status."""
    try:
        main(["data", *words])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def three_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources ``whole`` (in the mirror), ``part`` (one of two files there) and ``none``; returns the mirror."""
    folder, mirror = tmp_path / "data_manifests", tmp_path / "mirror"
    folder.mkdir()
    for name in ("whole", "part", "none"):
        files = []
        for k in range(2):
            body = f"{name}{k}".encode()
            known = {"unverifiable": "nobody says"} if k else {"sha256": hashlib.sha256(body).hexdigest()}
            files.append({"name": f"{k}.bin", "size": len(body), **known})
            if name == "whole" or (name == "part" and k == 0):
                (mirror / name).mkdir(parents=True, exist_ok=True)
                (mirror / name / f"{k}.bin").write_bytes(body)
        entries = {"what": f"What {name} is", "page": "https://a.org", "licence": "CC0", "by_hand": "Ask the author."}
        text = yaml.safe_dump({**entries, "bibtex": f"@misc{{{name}, title = {{T}}}}", "files": files})
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(manifests, "FOLDER", folder)
    monkeypatch.setenv("AVREPRO_MIRROR", str(mirror))
    return mirror


def test_list_has_a_row_a_source(three_sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    at_hand = {line.split()[0]: line.split()[4] for line in capsys.readouterr().out.splitlines()[1:]}
    assert at_hand == {"none": "no", "part": "partly", "whole": "mirror"}


def test_verify(three_sources: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "none") == 1
    assert run("verify") == 1  # of part one file is missing
    out = capsys.readouterr().out
    assert "part: 1 of 2 files are there and right\n  missing: 1.bin\n" in out and "none: not fetched\n" in out
    assert "whole: 2 of 2 files are there and right (1 without a hash to check)\n" in out
    shutil.rmtree(three_sources / "part")
    assert run("verify") == 0  # what was never fetched is no failure
    (three_sources / "whole" / "0.bin").write_bytes(b"WHOLE0")
    assert run("verify") == 1
    assert f"  corrupt: {three_sources / 'whole' / '0.bin'}: expected SHA-256" in capsys.readouterr().out


def test_fetch_says_where_on_what_terms_and_whom_to_cite(
    three_sources: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fetch", "whole") == 0
    out = capsys.readouterr().out
    assert str(three_sources / "whole" / "0.bin") in out and "1.bin could not be checked: nobody says" in out
    assert "Licence: CC0" in out and "@misc{whole" in out
    assert run("fetch", "part") == 1 and "avrepro: part/1.bin has no public" in capsys.readouterr().err


def test_the_clips_of_a_list_from_a_folder(mirror: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five of the real clips are in AudioSet's evaluation list, none in the testing list of DCASE 2017 Task 4."""
    real = mirror / "real_clips"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_MIRROR", str(mirror))
        assert run("clips", "audioset", "--split", "evaluation", "--media", str(real)) == 0
        counts = {line[8:]: int(line[:7]) for line in capsys.readouterr().out.splitlines() if "clips;" not in line}
        assert counts == {"not fetched": 20366, "ok": 5}
        assert run("clips", "dcase2017", "--split", "testing", "--limit", "20", "--media", str(real)) == 0
        assert capsys.readouterr().out.startswith("     20 not fetched\n     20 clips; the row of each is in")
    assert run("clips", "audioset", "--split", "testing") == 1
    assert "AudioSet has no list 'testing', only balanced, unbalanced, evaluation" in capsys.readouterr().err


def test_load_says_what_is_there_and_what_is_missing(
    tmp_path: Path, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    shutil.copy(mirror / "real_clips" / "1HNGJDppKG0_60.000_70.000.mp4", folder / "good.mp4")
    (folder / "bad.mp4").write_bytes(b"no video")
    labels = tmp_path / "labels.csv"
    labels.write_text("clip,labels,split\ngood.mp4,Speech,test\nbad.mp4,Music,test\n")
    assert run("load", "folder", "--clips", str(folder), "--labels", str(labels)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "test: 1 clips, 1 missing" and lines[1].startswith("missing: bad")
    assert lines[2] == "2 classes: Music, Speech"
