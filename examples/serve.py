"""Serves a detector: python serve.py model.onnx, then POST {"image": "<base64>"} to http://127.0.0.1:8000/predict."""

import multiprocessing
import signal
import sys

import litserve
from fastapi.responses import JSONResponse
from pydantic import Base64Bytes, BaseModel

from iouquery_runtime import Detector


def stop(*_):  # without a traceback of each process
    raise SystemExit if multiprocessing.parent_process() else KeyboardInterrupt


signal.signal(signal.SIGINT, stop)


class DetectionAPI(litserve.LitAPI):
    class ImageRequest(BaseModel):  # what is none is answered with status 422, and what is wrong with it
        image: Base64Bytes

    def setup(self, device):
        self.detector = Detector(sys.argv[1])

    def decode_request(self, request: ImageRequest):
        return request.image

    def predict(self, images):
        results = self.detector(images, score_thr=0.3, batch_size=len(images), on_error='skip')
        return [JSONResponse(x.to_dict(), 422 if x.error else 200) for x in results]


if __name__ == '__main__':
    sys.argv[1:] or sys.exit(__doc__)
    signal.signal(signal.SIGTERM, stop)  # as Ctrl-C, or workers stay
    server = litserve.LitServer(DetectionAPI(max_batch_size=8, batch_timeout=0.01), accelerator='cpu')
    server.run(host='127.0.0.1', port=int((sys.argv[2:] or ['8000'])[0]), generate_client_file=False)
