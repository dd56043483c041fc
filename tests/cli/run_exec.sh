#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `softslice run` becomes the program: its arguments, its exit status, its signals.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"

for code in 0 1 3 125 255; do
    try "$softslice" run --vram 1GiB -- sh -c "exit $code"
    expect_status "$code"
    expect_quiet
done
for signal in TERM=143 KILL=137 SEGV=139; do
    try sh -c '"$1" run --vram 1GiB -- sh -c "kill -$2 \$\$"; echo "status $?"' sh "$softslice" "${signal%=*}"
    expect_out "^status ${signal#*=}\$"
done

# The program is the process itself, not a child of it.
try sh -c 'echo $$; exec "$1" run --vram 1GiB -- sh -c "echo \$\$"' sh "$softslice"
[ "$(printf '%s\n' "$out" | sort -u | wc -l)" = 1 ] || fail "expected one process id twice"

try "$softslice" run --vram 1GiB -- no-such-program
expect_status 127
expect_err "^softslice: cannot run 'no-such-program': No such file or directory$"
try "$softslice" run --vram 1GiB -- "$TEST_TMP/none/program"
expect_status 127
echo text >"$TEST_TMP/text"
try "$softslice" run --vram 1GiB -- "$TEST_TMP/text"
expect_status 126
expect_err "^softslice: cannot run '.*text': Permission denied$"
try "$softslice" run --vram 1GiB -- "$TEST_TMP"
expect_status 126

# Options end at the program, with -- or without; what follows is the program's.
try "$softslice" run --vram 1GiB printf '%s|' --vram 3GB -- ''
expect_status 0
expect_out '^--vram\|3GB\|--\|\|$'
try "$softslice" run --vram=1GiB -- printf '%s|' 'a b' "it's" '*'
expect_out "^a b\|it's\|\*\|\$"

# Blanks in the program's name, a script without an interpreter line, and one with.
printf 'echo from a script "$1"\n' >"$TEST_TMP/my program"
chmod +x "$TEST_TMP/my program"
try "$softslice" run --vram 1GiB -- "$TEST_TMP/my program" 'x y'
expect_status 0
expect_quiet
expect_out '^from a script x y$'
printf '#!/bin/sh\nprintenv SOFTSLICE_VRAM\n' >"$TEST_TMP/script"
chmod +x "$TEST_TMP/script"
try env PATH="$TEST_TMP:$PATH" "$softslice" run --vram 1GiB -- script
expect_quiet
expect_out '^1GiB$'
done_testing
