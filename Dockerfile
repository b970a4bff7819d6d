# Kaggle's own GPU image, pinned by the digest in kaggle/image.lock, with what it lacks: the wheels of
# offline_wheels/ and the project's own, by hash, from no index. `invoke image` lays out the folder
# this is built in, so that nothing else of the checkout travels, and builds without a network.
ARG BASE_IMAGE=gcr.io/kaggle-gpu-images/python@sha256:bdf9e0538555f90453619adefb49ba40cfa136db44a9c9be7a42ea715c0aa068
FROM ${BASE_IMAGE}

# requirements.txt there is made from wheels.lock; a wheel that is missing or another ends the build.
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

# What runs inside can say in which image; and torch asks for a user's name, which a number lacks.
ENV PARITY_IMAGE="${BASE_IMAGE}" USER=kaggle HOME=/tmp

# Kaggle runs its kernels as root in its own image, and never this one. Here nothing needs root, so
# what works here works there too; RUN_AS=0:0 builds an image that runs exactly as Kaggle's does.
ARG RUN_AS=1000:1000
USER ${RUN_AS}
WORKDIR /kaggle/working
CMD ["python", "/opt/kaggle-parity/kernel.py"]
