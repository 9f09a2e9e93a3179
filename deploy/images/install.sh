#!/bin/sh
# What the images hold: an environment with the locked packages, the wheel, and kernels compiled for this processor.
#
#     install.sh WHEEL LOCK PREFIX
#
# Nothing is taken that the lock does not name with its hash. PREFIX/cache is where compiled kernels are kept: give it
# as XDG_CACHE_HOME to what runs. They know their modules by size and time, and so does Python; layers of images keep
# whole seconds, so that modules get a time that has no more.
set -eu
wheel=$1 lock=$2 prefix=$3

"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/python" -m pip install --quiet --no-cache-dir --require-hashes --requirement "$lock"
"$prefix/bin/python" -m pip install --quiet --no-cache-dir --no-deps --no-compile "$wheel"
"$prefix/bin/python" -m pip check

cd "$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
modules=$(sed -n 's/\.py,.*/.py/p' flowbeam-*.dist-info/RECORD)
touch -d "@$(date +%s)" $modules
"$prefix/bin/python" -m compileall -q $modules

mkdir -p "$prefix/cache"
cd /
XDG_CACHE_HOME=$prefix/cache "$prefix/bin/python" -c '
from pipelines.first_run import compile_kernels
compile_kernels((), quiet=False)
'
"$prefix/bin/python" -m pipelines.flows --help > "$prefix/options.txt"
