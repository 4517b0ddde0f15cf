# One image for all components: `docker run tallystream gateway ...`. The hash of each package is checked (requirements/).
FROM python:3.12-slim AS build
# The hot modules are compiled (setup.py). The compilers are not in the final image.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/runtime.lock requirements/compile.lock requirements/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/runtime.lock \
    && cp -a /venv /build \
    && /build/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements/compile.lock
COPY pyproject.toml setup.py README.md LICENSE ./
COPY schemas/ schemas/
COPY streams/ streams/
COPY agents/ agents/
COPY src/ src/
# The container's file system is read-only, so Python's bytecode is compiled here and not at run time.
RUN TALLYSTREAM_COMPILE=1 MYPYPATH=src /build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index \
        --wheel-dir /wheels . \
    && /venv/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /venv/bin/python -m compileall -q /venv/lib/python3.12/site-packages/tallystream

FROM python:3.12-slim
RUN groupadd --gid 10001 tallystream \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tallystream \
    && install -d -o tallystream -g tallystream /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 TALLYSTREAM_DATA_DIR=/data
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
VOLUME /data
ENTRYPOINT ["tallystream"]
