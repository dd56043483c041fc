/* SPDX-License-Identifier: Apache-2.0 */
/* The process that holds a pod's name spaces: it waits to be ended. Linked statically, it is all of its image. */
#include <unistd.h>

int main(void)
{
    for (;;)
        pause();
}
