# An image with the command `cdl`, from this checkout; results are in the folder that is mounted:
#   docker build -t cdl .
#   docker run --rm -v "$PWD/work:/work" cdl run config.yaml --cores 2
FROM python:3.11-slim
COPY . /opt/cdl
RUN pip install --no-cache-dir -c /opt/cdl/constraints.txt "/opt/cdl[export]"
WORKDIR /work
ENTRYPOINT ["cdl"]
