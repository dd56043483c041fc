#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The installer of the library's image: whole files under stable names, and no other library but the one before.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
install=$TEST_BUILD/install-library
at=$TEST_TMP/node
fail() { echo "install-library: $*" >&2; ls -la "$at" >&2; exit 1; }
put() { "$install" --from "$1" "$at" >"$TEST_TMP/out" 2>&1 || { cat "$TEST_TMP/out"; fail "exit status $?"; }; }
libraries() { find "$at" -name 'libsoftslice.so.*' | wc -l; }
mkdir "$at"
lib=$TEST_TMP/lib.so
cp "$TEST_LIB" "$lib"

put "$lib"
cmp "$lib" "$at/libsoftslice.so" || fail "not the library"
[ "$(cat "$at/ld.so.preload")" = /usr/local/lib/softslice/libsoftslice.so ] || fail "ld.so.preload"
[ "$(stat -c %a "$at/libsoftslice.so" "$at/ld.so.preload" | tr '\n' ' ')" = "755 644 " ] || fail "modes"
[ "$(find "$at" | wc -l)" = 4 ] || fail "more than the three files"
"$install" --check --from "$lib" "$at" || fail "the check does not know it"

# Again: nothing changes, for a node restarts its pods.
before=$(stat -c '%i %y' "$at"/*)
put "$lib"
[ "$(stat -c '%i %y' "$at"/*)" = "$before" ] || fail "installed again, it is another file"
[ ! -e "$at/.softslice.new" ] || fail "a temporary name is left"

# Another one: who has the old file open keeps it.
exec 3<"$at/libsoftslice.so"
for version in b c d; do
    cp "$TEST_LIB" "$TEST_TMP/$version.so"
    echo "$version" >>"$TEST_TMP/$version.so"
    put "$TEST_TMP/$version.so"
    cmp "$TEST_TMP/$version.so" "$at/libsoftslice.so" || fail "$version is not the library"
    "$install" --check --from "$lib" "$at" 2>/dev/null && fail "the check takes $version for the first"
done
cmp "$lib" /dev/fd/3 || fail "the old file was written over"
[ "$(libraries)" = 2 ] || fail "$(libraries) libraries are left"

# What an installer that was killed left, and what others put there.
echo half >"$at/.softslice.new"
echo torn >"$at/$(basename "$(find "$at" -samefile "$at/libsoftslice.so" -name 'libsoftslice.so.*')")"
put "$TEST_TMP/d.so"
cmp "$TEST_TMP/d.so" "$at/libsoftslice.so" || fail "a damaged file stayed"
[ ! -e "$at/.softslice.new" ] || fail "a temporary name is left"
rm "$at/libsoftslice.so"
ln -s /etc/passwd "$at/libsoftslice.so"
ln -s "$TEST_TMP/elsewhere" "$at/.softslice.new"
put "$TEST_TMP/d.so"
{ [ ! -L "$at/libsoftslice.so" ] && [ ! -e "$TEST_TMP/elsewhere" ]; } || fail "a link was followed"

# Refusals.
refuse() {
    said=$("$install" "$@" 2>&1) && fail "taken: $*"
    [ "$(printf '%s\n' "$said" | grep -c .)" -ge 1 ] || fail "nothing said of: $*"
}
refuse
refuse --stay --check "$at"
refuse --from /nowhere "$at"
refuse --from "$here/install_library.sh" "$at"
refuse --from "$lib" "$TEST_TMP/nowhere"
refuse --from "$lib" --path 'a b' "$at"
refuse --from "$lib" --path '/a:b' "$at"
chmod 777 "$at"
refuse --from "$lib" "$at"
chmod 755 "$at"

# It stays until it is told to end. Until then the library is there, and after.
mkfifo "$TEST_TMP/said"
"$install" --stay --from "$lib" "$at" >"$TEST_TMP/said" &
pid=$!
read -r line <"$TEST_TMP/said"
case $line in "install-library: $at/libsoftslice.so."*) ;; *) fail "it says '$line'" ;; esac
kill -TERM $pid
wait $pid || fail "ended by SIGTERM with status $?"
cmp "$lib" "$at/libsoftslice.so" || fail "gone"
