/* test/onnx_judge.h -- exported files before judges that know nothing of qrun: the checker of
 * python3-onnx and ONNX Runtime (test/onnx/). A judge that is not installed skips its test by name.
 * Include cmocka.h first. */
#ifndef TEST_ONNX_JUDGE_H
#define TEST_ONNX_JUDGE_H

#include "engine/tensor.h"

/* One exported file, an input for it and what it must make of it. */
typedef struct JudgeCase {
    char *name, *model;
    double atol; /* 0: bit-identical */
    int flips;   /* images that may differ by more: a value at a threshold of a quantizer took the
                    other level, since sums of another order differ in the last bit */
} JudgeCase;

typedef struct Judge {
    char *dir; /* a temporary folder */
    JudgeCase *c;
    int n;
    size_t cap;
} Judge;

int judge_open(Judge *j); /* makes the folder; 0 */
void judge_close(Judge *j);

/* The path the model of a new case is to be written to; valid as long as j. */
const char *judge_add(Judge *j, const char *name);
/* Of the case added last; neither without this. */
void judge_allow(Judge *j, double atol, int flips);
/* `input` and the wanted `output` of the case added last. */
void judge_tensors(Judge *j, const Tensor *input, const Tensor *output);

/* All files through the checker, in one go; then each through the runtime, at an optimisation level
 * of it ("all", "disabled"). Fail the running test with what was said, or skip it. */
void judge_check(const Judge *j);
void judge_run(const Judge *j, const char *level);

/* The same as tests and fixtures of a group whose state is a Judge; behind the tests that add
 * cases. */
int judge_setup(void **state);
int judge_teardown(void **state);
void judge_test_check(void **state);
void judge_test_all(void **state);
void judge_test_disabled(void **state);

#endif
