"""What yt-dlp is asked, how its messages are understood, and when the next request may come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import video_server
from video_server import QUICK, Server, clip

from avrepro.corpora.download import collect
from avrepro.corpora.youtube import RateLimiter, status_of, watch_address

server, videos = video_server.server, video_server.videos


def test_requests_under_way_when_the_limit_comes_pause_once() -> None:
    limiter = RateLimiter(first=0.05, longest=10, retries=1)
    asked = [limiter.wait() for _ in range(4)]  # four workers
    for moment in asked:
        limiter.limited(moment)
    assert limiter.pauses == [0.05]
    again = limiter.wait()
    limiter.limited(again)
    assert limiter.pauses == [0.05, 0.1]
    limiter.passed(asked[0])  # an answer from before the limit says nothing
    limiter.limited(limiter.wait())
    limiter.passed(limiter.wait())
    limiter.limited(limiter.wait())
    assert limiter.pauses == [0.05, 0.1, 0.2, 0.05]


def test_cookies_go_to_the_server_and_their_file_stays_as_it_is(server: Server, tmp_path: Path) -> None:
    cookies = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n"
    cookies.write_text(text)
    folder = tmp_path / "clips"
    table = collect([clip("good")], folder, address=server.address, cookies=cookies, limiter=RateLimiter(**QUICK))
    assert list(table["status"]) == ["ok"]
    assert server.cookies == {"session=secret"}
    assert cookies.read_text() == text


MESSAGES = {  # yt-dlp's error texts, as its users report them
    "private": [
        "[youtube] M7mKMWjAxG8: Private video. Sign in if you've been granted access to this video",
        "[youtube] x: Video unavailable. This video is private",
    ],
    "unavailable": [
        "[youtube] x: Video unavailable",
        "[youtube] x: Video unavailable. This video is not available",
        "[youtube] x: Video unavailable. This video has been removed by the uploader",
        "[youtube] x: This video has been removed for violating YouTube's Terms of Service",
        "[youtube] x: Video unavailable. This video is no longer available because the YouTube account associated "
        "with this video has been terminated.",
        "[youtube] x: This video is no longer available because the uploader has closed their YouTube account.",
        "[youtube] x: Video unavailable. This video is no longer available due to a copyright claim by WMG.",
        "[youtube] x: Sign in to confirm your age. This video may be inappropriate for some users. Use "
        "--cookies-from-browser or --cookies for the authentication.",
        "[youtube] x: The uploader has not made this video available in your country. This video is available in CA. "
        "You might want to use a VPN or a proxy server (with --proxy) to workaround.",
        "[youtube] x: Video unavailable. This video contains content from SME, who has blocked it in your country on "
        "copyright grounds",
        "[youtube] x: Join this channel to get access to members-only content like this video, and other exclusive "
        "perks.",
        "[youtube] x: This live stream recording is not available.",
        "[generic] Unable to download webpage: HTTP Error 404: Not Found (caused by <HTTPError 404: Not Found>)",
    ],
    "limited": [
        "[youtube] x: Video unavailable. This content isn't available, try again later. The current session has been "
        "rate-limited by YouTube for up to an hour. It is recommended to use `-t sleep` to add a delay",
        "[youtube] x: Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies for the "
        "authentication.",
        "[youtube] x: Sign in to confirm you're not a bot",
        "[youtube] Unable to download webpage: HTTP Error 429: Too Many Requests (caused by <HTTPError 429>)",
        "[youtube] x: Video unavailable. YouTube is requiring a captcha challenge before playback",
    ],
    "error": [
        "unable to download video data: HTTP Error 403: Forbidden",
        "[youtube] x: Requested format is not available. Use --list-formats for a list of available formats",
        "[youtube] x: Failed to extract any player response; please report this issue",
        "[youtube] x: This live event will begin in 2 hours.",
        "Unable to download webpage: <urlopen error [Errno 110] Connection timed out>",
        "Unable to download webpage: The TLS connection was non-properly terminated.",
        "The downloaded file is empty",
    ],
}


@pytest.mark.parametrize(("status", "text"), [(status, text) for status in MESSAGES for text in MESSAGES[status]])
def test_what_messages_of_yt_dlp_mean(status: str, text: str) -> None:
    assert status_of(f"ERROR: {text}") == status


def test_addresses_are_safe() -> None:
    from yt_dlp.extractor.youtube import YoutubeIE

    assert watch_address(clip("-5QrBL6MzLg")) == "https://www.youtube.com/watch?v=-5QrBL6MzLg"
    assert YoutubeIE.extract_id(watch_address(clip("-5QrBL6MzLg"))) == "-5QrBL6MzLg"
    assert watch_address(clip("a&b=c d")).endswith("?v=a%26b%3Dc%20d")


def test_without_yt_dlp(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['yt_dlp'] = None; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from video_server import clip; from avrepro.corpora.download import collect\n"
        "collect([clip('good')], Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert "CorpusError: yt-dlp is not installed" in ended.stderr
    assert "pip install" in ended.stderr
