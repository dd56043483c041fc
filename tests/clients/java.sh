#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A Java process with the library preloaded: it starts, loads the driver as a native library (which looks symbols up), and ends as ever.
set -eu
command -v java >/dev/null || { echo "java is not installed"; exit 77; }
cat >"$TEST_TMP/Client.java" <<'END'
public class Client {
    public static void main(String[] arguments) throws Exception {
        System.load(arguments[0]);
        Thread[] threads = new Thread[50];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(() -> { byte[][] memory = new byte[64][]; for (int j = 0; j < 64; j++) memory[j] = new byte[65536]; });
            threads[i].start();
        }
        for (Thread thread : threads)
            thread.join();
        Process child = new ProcessBuilder("true").start();
        System.out.println("done " + child.waitFor());
    }
}
END
run() { env LD_PRELOAD="$1" java -Xmx64m "$TEST_TMP/Client.java" "$TEST_SIM/libcuda.so.1" 2>&1; }
without=$(run "") || { echo "this java runs no source file: $without" | tail -n 1; exit 77; }
for limit in 1GiB ''; do
    with=$(SOFTSLICE_VRAM=$limit SOFTSLICE_COMPUTE=${limit:+50%} run "$TEST_PRELOAD")
    [ "$with" = "$without" ] || { echo "expected: $without"; echo "seen: $with"; exit 1; }
done
