/* test/probe/policy.c -- rules of a policy: a pure function of the epoch, so that a resumed run
 * replays them. */
#include "test/probe/probe.h"

static const struct {
    int epoch;
    const char *pattern, *attr;
    double value;
} rules[] = {
    {0, "layer1.", "levels", 5},   {1, "layer2.", "enable", 0}, /* off for good */
    {1, "layer3.", "levels", 7},   {2, "layer1.0.", "enable", 0},
    {3, "layer1.0.", "enable", 1}, /* and on again */
};

int probe_policy(Model *m, int epoch, Err *e)
{
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        int n = rules[i].epoch == epoch
                    ? model_set(m, rules[i].pattern, rules[i].attr, rules[i].value, e)
                    : 1;
        if (n < 0) return -1;
        if (!n)
            return err_set(e, ERR_CONFIG, "no quantizer's name contains '%s'", rules[i].pattern);
    }
    return 0;
}
