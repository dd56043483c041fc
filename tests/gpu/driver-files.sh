#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Asks NVIDIA's own driver libraries, as files and without a GPU, what a file alone can tell: the
# probes elf, identity and refusal on each version of libcuda.so.1 that Debian's non-free packages
# hold, x86-64, and aarch64 under qemu-user where that and a cross compiler are installed.
#
#   tests/gpu/driver-files.sh [OUTDIR]    default: build/gpu/driver-files; writes VERSION-ARCH.tsv
#
# Where build/libsoftslice.so is built, the x86-64 libraries are asked again under it, every dimension armed:
# the answers must be the same but for whose functions they are. Exits 1 when they are not.
#
# The packages are unpacked under build/gpu and never installed. Debian alone; elsewhere, run
# PROBE_LIBCUDA=.../libcuda.so.1 PROBE_LIBNVML=.../libnvidia-ml.so.1 build/gpu/probe_identity.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:-build/gpu/driver-files}
work=$PWD/build/gpu/driver-packages
suites="bookworm trixie sid experimental"
cuda=${CUDA_HOME:-/usr/local/cuda}
cflags="-std=gnu11 -D_GNU_SOURCE -O2 -I$cuda/include"
mkdir -p "$out" "$work" || exit 1
out=$(cd "$out" && pwd)

command -v apt-get >/dev/null || { echo "skipped: no apt-get here"; exit 77; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
[ -n "$mirror" ] || { echo "skipped: apt knows no Debian mirror"; exit 77; }

apt_in() { # apt_in ARCH PROGRAM ARGUMENT...: apt with its state under build/, for another architecture
    local arch=$1 program=$2
    shift 2
    "$program" -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$work/lists-$arch" -o Dir::Cache="$work/cache-$arch" \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User=root "$@"
}

probe() { # probe ARCH DIRECTORY RESULT
    local arch=$1 dir=$2 result=$3 p src
    : >"$result"
    for p in elf identity refusal; do
        src="tests/gpu/probe_$p.c tests/gpu/probe.c"
        if [ "$arch" = amd64 ]; then
            # shellcheck disable=SC2086
            cc $cflags -o "$work/probe_$p" $src -ldl || return 1
            PROBE_LIBCUDA=$dir/libcuda.so.1 PROBE_LIBNVML=$dir/libnvidia-ml.so.1 \
                timeout 120 "$work/probe_$p" >>"$result"
        else
            # shellcheck disable=SC2086
            aarch64-linux-gnu-gcc $cflags -o "$work/probe_$p-arm64" $src -ldl || return 1
            timeout 300 qemu-aarch64-static -L /usr/aarch64-linux-gnu \
                -E PROBE_LIBCUDA="$dir/libcuda.so.1" -E PROBE_LIBNVML="$dir/libnvidia-ml.so.1" \
                "$work/probe_$p-arm64" >>"$result"
        fi
    done
    # Addresses and this checkout's path differ from run to run; the probes that need a GPU only skip.
    sed -i -e 's/0x7f[0-9a-f]\{10\}/ADDRESS/g' -e '/\.path\t/d' -e '/\tskipped\t/d' \
        -e '/exit status 77$/d' "$result"
}

# Under softslice each road must still give one address a symbol, and every odd question its old answer.
under_softslice() { # under_softslice DIRECTORY NATIVE-RESULT
    local rows=$work/softslice.tsv
    [ -e build/libsoftslice.so ] || return 0
    LD_PRELOAD=$PWD/build/libsoftslice.so SOFTSLICE_VRAM=8GiB SOFTSLICE_COMPUTE=50% \
        SOFTSLICE_STATE_DIR=$work/state PROBE_LIBCUDA=$1/libcuda.so.1 \
        PROBE_LIBNVML=$1/libnvidia-ml.so.1 timeout 120 "$work/probe_identity" >"$rows"
    if ! diff <(grep -v functions_of "$rows") <(grep ^identity "$2" | grep -v functions_of); then
        echo "under softslice: other answers than the driver's own"
        failed=1
        return
    fi
    echo "    under softslice the same; functions of" \
        "$(sed -n 's/.*functions_of\t//p' "$rows" | paste -sd, | sed 's/,/, /g')"
}

failed=0
mkdir -p "$work/state"
touch "$work/begun"
for suite in $suites; do echo "deb $mirror $suite non-free"; done >"$work/sources.list"
for arch in amd64 arm64; do
    if [ $arch = arm64 ] && ! command -v qemu-aarch64-static aarch64-linux-gnu-gcc >/dev/null; then
        echo "skipped aarch64: no qemu-aarch64-static or no cross compiler"
        continue
    fi
    mkdir -p "$work/lists-$arch/partial" "$work/cache-$arch/archives/partial"
    apt_in $arch apt-get -q update >"$work/apt.log" 2>&1 || { cat "$work/apt.log"; exit 1; }
    for v in $(apt_in $arch apt-cache madison libcuda1 | awk '{print $3}' | sort -u); do
        dir=$work/$arch-$v
        mkdir -p "$dir"
        (cd "$dir" && apt_in $arch apt-get -q download "libcuda1:$arch=$v" "libnvidia-ml1:$arch=$v" \
            >>"$work/apt.log" 2>&1) || { echo "cannot fetch $v for $arch"; continue; }
        for deb in "$dir"/*.deb; do dpkg -x "$deb" "$dir"; done
        lib=$(dirname "$(find "$dir" -name 'libcuda.so.1' | head -n 1)")
        version=$(find "$lib" -name 'libcuda.so.*.*' | head -n 1)
        version=${version##*libcuda.so.}
        result=$out/$version-$(echo $arch | sed 's/amd64/x86_64/;s/arm64/aarch64/').tsv
        [ "$result" -nt "$work/begun" ] && continue # another revision of a driver already asked
        probe $arch "$lib" "$result" || exit 1
        awk -F'\t' -v who="$version $arch" '
            $2 == "driver_version_number" { cuda = $3 }
            $2 == "before_init.same_address" { same = $3 }
            $2 == "before_init.different_address" { other = $3 }
            $2 == "before_init.rule_cells" { cells = $3 }
            $2 == "before_init.rule_cells_that_differ" { wrong = $3 }
            $2 == "libcuda.symbolic" { symbolic = " SYMBOLIC" }
            END { printf "%s: CUDA %s%s, %s symbols at one address by both roads, %s not; rule: %s of %s differ\n",
                  who, cuda, symbolic, same, other, wrong, cells }' "$result"
        [ $arch = amd64 ] && under_softslice "$lib" "$result"
    done
done
exit $failed
