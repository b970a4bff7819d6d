# Kaggle's own GPU image, pinned by digest, with what it lacks. A first version: it installs the
# project's wheel and what lies in offline_wheels/, and never reaches a network.
#   docker build --build-arg BASE_IMAGE=... .     another base, such as a stand-in for tests
ARG BASE_IMAGE=gcr.io/kaggle-gpu-images/python@sha256:bdf9e0538555f90453619adefb49ba40cfa136db44a9c9be7a42ea715c0aa068
FROM ${BASE_IMAGE}

ARG BASE_IMAGE
LABEL org.opencontainers.image.title="kaggle-parity" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"

COPY offline_wheels/ /opt/offline_wheels/
COPY kaggle/kernel.py /opt/kaggle-parity/kernel.py
RUN python -m pip install --no-index --no-deps --no-cache-dir /opt/offline_wheels/*.whl \
 && mkdir -p /kaggle/input /kaggle/working

WORKDIR /kaggle/working
CMD ["python", "/opt/kaggle-parity/kernel.py"]
