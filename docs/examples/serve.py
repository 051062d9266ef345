"""Serves a detector: python serve.py model.onnx, then POST {"image": "<base64>"} to http://127.0.0.1:8000/predict."""

import base64
import sys

import litserve

from iouquery_runtime import Detector


class DetectionAPI(litserve.LitAPI):
    def setup(self, device):
        self.detector = Detector(sys.argv[1])

    def decode_request(self, request):
        try:
            return base64.b64decode(request['image'])
        except (KeyError, TypeError, ValueError):
            return b''  # an error of this request, not of all in its batch

    def predict(self, images):
        return self.detector(images, score_thr=0.3, batch_size=len(images), on_error='skip')

    def encode_response(self, result):
        return result.to_dict()


if __name__ == '__main__':
    api, port = DetectionAPI(max_batch_size=8, batch_timeout=0.01), int((sys.argv[2:] or [8000])[0])
    litserve.LitServer(api, accelerator='cpu').run(host='127.0.0.1', port=port, generate_client_file=False)
