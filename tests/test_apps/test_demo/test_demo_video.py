"""A video is read at the rate asked for, written so that browsers play it, and drawn on as images are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from exported_files import write_model
from PIL import Image

from mmdet_iouquery.apps.demo.image_results import annotate_video, show
from mmdet_iouquery.apps.demo.model import ExportedModel
from mmdet_iouquery.apps.demo.video import Video, video_writer
from mmdet_iouquery.errors import InputError

GREYS = [20 * number for number in range(1, 13)]


@pytest.fixture(scope='module')
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames at 6 a second, each of another grey."""
    path = tmp_path_factory.mktemp('film') / 'greys.webm'
    with video_writer(path, 6) as add:
        for grey in GREYS:
            add(Image.new('RGB', (64, 48), (grey, grey, grey)))
    return path


def greys(video: Video) -> list[int]:
    return [round(float(np.asarray(frame.image).mean()) / 20) * 20 for frame in video]


@pytest.mark.parametrize(
    ('rate', 'expected'), [(6, GREYS), (3, GREYS[::2]), (4, [20, 60, 80, 120, 140, 180, 200, 240]), (30, GREYS)]
)
def test_frames_are_those_of_the_rate(film: Path, rate: float, expected: list[int]) -> None:
    video = Video(film, rate)
    assert video.rate == min(rate, 6) and video.count == len(expected)
    assert greys(video) == expected
    assert [frame.time_s for frame in video] == pytest.approx([(grey / 20 - 1) / 6 for grey in expected])
    assert {frame.image.size for frame in video} == {(64, 48)}


@pytest.mark.parametrize('ending', ['.mp4', '.avi'])
def test_other_containers_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'film{ending}'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (64, 48))
    for grey in (40, 80, 120):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    assert greys(Video(path, 10)) == [40, 80, 120]


@pytest.mark.parametrize('content', [b'', b'no video', b'\x1aE\xdf\xa3' + 40 * b'\0'], ids=['empty', 'text', 'torn'])
def test_what_is_no_video_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'notes.mp4'
    path.write_bytes(content)
    sentence = r'^notes\.mp4 is no video that can be read; take an MP4, WebM or AVI file$'
    with pytest.raises(InputError, match=sentence):
        Video(path, 5)
    with pytest.raises(InputError, match='nowhere'):
        Video(tmp_path / 'nowhere.mp4', 5)


def test_a_play_list_does_not_lead_to_other_files(film: Path, tmp_path: Path) -> None:
    """Whoever reaches the page may upload one; it would name files of this machine, or addresses."""
    for name, text in (
        ('list.m3u8', f'#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{film}\n#EXT-X-ENDLIST\n'),
        ('list.ffconcat', f"ffconcat version 1.0\nfile '{film}'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match='is no video that can be read'):
            Video(tmp_path / name, 5)


def test_each_frame_carries_its_detections(film: Path, tmp_path: Path) -> None:
    model, out = ExportedModel(write_model(tmp_path / 'model.onnx')), tmp_path / 'found.webm'
    done: list[int] = []
    frames = annotate_video(Video(film, 3), out, lambda image: show('model', model, image, 0.1), done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    assert [frame['time'] for frame in frames] == pytest.approx([0, 0.333, 0.667, 1, 1.333, 1.667])
    for frame, record in zip(Video(film, 3), frames):
        shown = show('model', model, frame.image, 0.1)
        assert [(box.score, shown.names[box.label]) for box in shown.boxes] == [
            (entry['score'], entry['name']) for entry in record['detections']
        ]
        assert shown.boxes
    drawn = [*Video(out, 3)]
    assert (
        len(drawn) == 6
        and drawn[0].image.size == show('model', model, next(iter(Video(film, 3))).image, 0.1).draw().size
    )
    assert np.asarray(drawn[0].image).std() > 5  # boxes on what was one grey
