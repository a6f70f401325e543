/* test/golden_fat.c -- what the cases of FAT have beside quantizers and nets: the label-smoothed
 * loss, and the spectral transform alone: magnitudes, scores, mask, result, and both gradients. The
 * cases list the whole spectrum; the program has its first half. */
#include "test/golden.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "quant/fat.h"

/* Half a spectrum, row by row in `half`, against all of it. */
static void whole_spectrum(Case *c, const Fat *f, const char *name, const float *half)
{
    const Yaml *want = yaml_get(yaml_get(c->y, "outputs"), name);
    const size_t n = (size_t)f->n;
    float *all = arena_alloc(&c->arena, (size_t)f->rows * n * sizeof *all);
    if (!want) return;
    for (size_t r = 0; r < (size_t)f->rows; r++)
        for (size_t k = 0; k < n; k++)
            all[r * n + k] = half[r * f->ld + (k < (size_t)f->bins ? k : n - k)];
    case_expect(c, name, want, all, (size_t)f->rows * n);
}

void golden_spectral(Case *c)
{
    Tensor x, t, dy;
    Fat f;
    float *save, *scratch, *y, *dx, *dt, *score;
    if (!case_array(c, yaml_path(c->y, "inputs.x"), "x", &x) ||
        !case_array(c, yaml_path(c->y, "inputs.transform"), "transform", &t) ||
        !case_array(c, yaml_path(c->y, "upstream.y"), "upstream", &dy))
        return;
    fat_init(&f, x.dim[0], (int)(tensor_len(&x) / (size_t)x.dim[0]));
    save = arena_alloc(&c->arena, fat_save_len(&f) * sizeof *save);
    scratch = arena_alloc(&c->arena, fat_scratch_len(&f) * sizeof *scratch);
    score = arena_alloc(&c->arena, (size_t)f.rows * f.ld * sizeof *score);
    y = arena_alloc(&c->arena, tensor_bytes(&x));
    dx = arena_alloc(&c->arena, tensor_bytes(&x));
    dt = arena_alloc(&c->arena, tensor_bytes(&t));
    fat_forward(&f, t.data, x.data, y, save, scratch);
    for (int r = 0; r < f.rows; r++)
        for (int k = 0; k < f.bins; k++) {
            const double m = (double)fat_mask(&f, save, r)[k];
            double s = 0;
            for (int i = 0; i < f.rows; i++)
                s += (double)((const float *)t.data)[r * f.rows + i] *
                     (double)fat_magnitude(&f, save, i)[k];
            score[(size_t)r * f.ld + (size_t)k] = (float)s;
            if (fabs(m - 1 / (1 + exp(-s))) > 1e-5)
                case_fail(c, "mask %g of row %d, bin %d does not follow from score %g", m, r, k, s);
        }
    whole_spectrum(c, &f, "magnitude", fat_magnitude(&f, save, 0));
    whole_spectrum(c, &f, "score", score);
    whole_spectrum(c, &f, "mask", fat_mask(&f, save, 0));
    case_expect(c, "y", yaml_path(c->y, "outputs.y"), y, tensor_len(&x));
    fat_backward(&f, t.data, save, dy.data, dx, dt, scratch);
    case_expect(c, "gradient of x", yaml_path(c->y, "grads.x"), dx, tensor_len(&x));
    case_expect(c, "gradient of transform", yaml_path(c->y, "grads.transform"), dt, tensor_len(&t));
    fat_free(&f);
}

/* The label-smoothed loss alone, with its gradient. */
void golden_loss(Case *c)
{
    ParamStore ps = {0};
    Graph g;
    Plan plan = {0};
    Exec x = {0};
    Prim *prim;
    Tensor z, target;
    Param *logits;
    int32_t *label;
    char *arena;
    int labels, loss;
    Err e = {0};
    if (!case_array(c, yaml_path(c->y, "inputs.logits"), "logits", &z) ||
        !case_array(c, yaml_path(c->y, "inputs.target"), "target", &target))
        return;
    logits = store_add(&ps, PK_WEIGHT, DT_F32, (Init){INIT_NONE, 0, 0}, z.ndim, z.dim, "logits");
    memcpy(logits->value.data, z.data, tensor_bytes(&z));
    store_alloc_grads(&ps);
    label = arena_alloc(&c->arena, (size_t)z.dim[0] * sizeof *label);
    for (int i = 0; i < z.dim[0]; i++) label[i] = (int32_t)((const float *)target.data)[i];
    graph_init(&g, true);
    labels = graph_external(&g, tensor_make(DT_S32, 1, z.dim, NULL), "labels");
    loss = graph_cross_entropy(&g, "loss", graph_param(&g, logits), labels,
                               (float)case_num(c, "params.epsilon", 0));
    g.v[loss].keep = true;
    prim = prim_open(&e);
    if (!prim || graph_finish(&g, prim, &e)) {
        case_fail(c, "%s", e.msg);
    } else {
        plan_make(&plan, &g, true);
        arena = xaligned(plan.arena_bytes + 1);
        exec_init(&x, &g, &plan, arena);
        exec_bind(&x, labels, label);
        exec_forward(&x, 0);
        exec_backward(&x);
        case_expect(c, "loss", yaml_path(c->y, "outputs.loss"), x.data[loss], 1);
        case_expect(c, "gradient of logits", yaml_path(c->y, "grads.logits"), logits->grad.data,
                    tensor_len(&z));
        exec_free(&x);
        plan_free(&plan);
        free(arena);
    }
    graph_free(&g);
    prim_close(prim);
    store_free(&ps);
}
