/* engine/par.c -- see par.h. */
#include "engine/par.h"

#include <omp.h>

int par_threads(void)
{
    return omp_get_max_threads();
}

void par_set_threads(int n)
{
    if (n > 0) omp_set_num_threads(n);
    omp_set_dynamic(0);
}
