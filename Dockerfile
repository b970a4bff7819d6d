# Kaggle's GPU image, pinned by the digest in kaggle/image.lock, plus the wheels that it does not have:
# those of offline_wheels/ and the project's own, installed by hash and without an index. `./inv image`
# creates the build context, so that no other file of the checkout gets in, and builds without a network.
ARG BASE_IMAGE=gcr.io/kaggle-gpu-images/python@sha256:bdf9e0538555f90453619adefb49ba40cfa136db44a9c9be7a42ea715c0aa068
FROM ${BASE_IMAGE}

# Its requirements.txt is made from wheels.lock; a missing or different wheel ends the build.
RUN --mount=type=bind,source=offline_wheels,target=/opt/offline_wheels \
    python -m pip --isolated install --no-index --find-links /opt/offline_wheels --no-deps \
    --require-hashes --no-cache-dir --root-user-action=ignore -r /opt/offline_wheels/requirements.txt \
 && mkdir -p /kaggle/input /kaggle/working /kaggle/temp \
 && chmod 1777 /kaggle/working /kaggle/temp

COPY kaggle/kernel.py /opt/kaggle-parity/kernel.py

ARG BASE_IMAGE
ARG IMAGE_LOCK=unknown
ARG WHEELS_LOCK=unknown
ARG CODE=unknown
LABEL org.opencontainers.image.title="kaggle-parity" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      kaggle-parity.image-lock="${IMAGE_LOCK}" \
      kaggle-parity.wheels-lock="${WHEELS_LOCK}" \
      kaggle-parity.code="${CODE}"

# A process can read which image it runs in; and torch needs a user name, which a bare id does not have.
ENV PARITY_IMAGE="${BASE_IMAGE}" USER=kaggle HOME=/tmp

# Kaggle runs kernels as root in its own image, never in this one. Nothing in this image needs root, so
# what works here also works on Kaggle; RUN_AS=0:0 builds an image that runs as root, like Kaggle's.
ARG RUN_AS=1000:1000
USER ${RUN_AS}
WORKDIR /kaggle/working
CMD ["python", "/opt/kaggle-parity/kernel.py"]
