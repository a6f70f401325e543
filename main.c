/* main.c -- qrun: trains, quantizes and evaluates convolutional networks on a CPU. See README.md.
 */
#include "run/main.h"

int main(int argc, char **argv)
{
    return run_main(argc, argv);
}
