/* A model as a Verilog-A compiler would write it, by hand: i = scale gm v0 sinh(v / v0).
 *
 * The binary interface is OSDI 0.3 (OpenVAF's specification; the layout of its structures is
 * the public contract with simulators). Beyond |v| = 3 v0 the law goes on along its tangent,
 * as in netlists/sinh.lib. Compiled by test_osdi.py with
 *   -DSCALE=x      another law under the same name,
 *   -DCRASH_LOAD   that ends the process while it is loaded,
 *   -DCRASH_EVAL   or while it is evaluated,
 *   -DMINOR=x      that claims another version.
 */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifndef SCALE
#define SCALE 1.0
#endif
#ifndef MINOR
#define MINOR 3
#endif
#define NONE UINT32_MAX

enum { SET = 1, OF_INSTANCE = 4 };  /* flags of access() */
enum { RESISTIVE = 4 };             /* flag of a Jacobian entry */
static const uint32_t INSTANCE_REAL = 1u << 30;

typedef struct { char **names; double *values; char **text_names, **texts; } SimParas;
typedef struct {
  SimParas paras;
  double time, *solution, *state, *next_state;
  uint32_t flags;
} SimInfo;
typedef struct { uint32_t flags, errors; void *list; } InitInfo;
typedef struct { uint32_t row, column; } Pair;
typedef struct { Pair nodes; uint32_t reactive_pointer, flags; } Entry;
typedef struct {
  char *name, *unit, *residual_unit;
  uint32_t resistive, reactive, limited_resistive, limited_reactive;
  bool is_flow;
} Node;
typedef struct { char **names; uint32_t aliases; char *text, *unit; uint32_t flags, length; } Param;

typedef struct {
  char *name;
  uint32_t nodes, terminals;
  Node *node;
  uint32_t entries;
  Entry *entry;
  uint32_t collapsible;
  Pair *collapse;
  uint32_t collapsed_at;
  void *noise;
  uint32_t noises;
  uint32_t params, instance_params, outputs;
  Param *param;
  uint32_t mapping_at, pointers_at;
  uint32_t states, states_at, step_bound_at, instance_size, model_size;
  void *(*access)(void *, void *, uint32_t, uint32_t);
  void (*setup_model)(void *, void *, SimParas *, InitInfo *);
  void (*setup_instance)(void *, void *, void *, double, uint32_t, SimParas *, InitInfo *);
  uint32_t (*eval)(void *, void *, void *, SimInfo *);
  void (*load_noise)(void *, void *, double, double *);
  void (*residual_resistive)(void *, void *, double *);
  void (*residual_reactive)(void *, void *, double *);
  void (*limit_resistive)(void *, void *, double *);
  void (*limit_reactive)(void *, void *, double *);
  void (*rhs_dc)(void *, void *, double *, double *);
  void (*rhs_transient)(void *, void *, double *, double *, double);
  void (*jacobian_resistive)(void *, void *);
  void (*jacobian_reactive)(void *, void *, double);
  void (*jacobian_transient)(void *, void *, double);
} Descriptor;

typedef struct {
  double *pointer[4];
  double gm, current, slope;
  uint32_t at[2];
  bool given, collapsed;
} Instance;
typedef struct { double v0; bool given; } Model;

#ifdef CRASH_LOAD
__attribute__((constructor)) static void crash(void) { abort(); }
#endif

static void *access_value(void *instance, void *model, uint32_t id, uint32_t flags) {
  Instance *x = instance;
  Model *m = model;
  if (id == 0 && (flags & OF_INSTANCE)) {
    x->given |= flags & SET;
    return &x->gm;
  }
  if (id == 1 && m) {
    m->given |= flags & SET;
    return &m->v0;
  }
  return NULL;
}

static void setup_model(void *handle, void *model, SimParas *paras, InitInfo *info) {
  Model *m = model;
  if (!m->given) m->v0 = 0.25;
  *info = (InitInfo){0};
}

static void setup_instance(void *handle, void *instance, void *model, double kelvin,
                           uint32_t terminals, SimParas *paras, InitInfo *info) {
  Instance *x = instance;
  if (!x->given) x->gm = 1e-5;
  *info = (InitInfo){0};
}

static uint32_t eval(void *handle, void *instance, void *model, SimInfo *info) {
  Instance *x = instance;
  double v0 = ((Model *)model)->v0;
  double u = (info->solution[x->at[0]] - info->solution[x->at[1]]) / v0;
  double bound = u > 3 ? 3 : u < -3 ? -3 : u;
#ifdef CRASH_EVAL
  abort();
#endif
  x->current = SCALE * x->gm * v0 * (sinh(bound) + cosh(bound) * (u - bound));
  x->slope = SCALE * x->gm * cosh(bound);
  return 0;
}

static void load_noise(void *instance, void *model, double frequency, double *density) {}
static void nothing(void *instance, void *model, double *into) {}

static void residual(void *instance, void *model, double *into) {
  Instance *x = instance;
  into[x->at[0]] += x->current;
  into[x->at[1]] -= x->current;
}

static void rhs_dc(void *instance, void *model, double *into, double *solution) {
  Instance *x = instance;
  double rest = x->slope * (solution[x->at[0]] - solution[x->at[1]]) - x->current;
  into[x->at[0]] += rest;
  into[x->at[1]] -= rest;
}

static void rhs_transient(void *instance, void *model, double *into, double *solution, double a) {
  rhs_dc(instance, model, into, solution);
}

static void jacobian(void *instance, void *model) {
  Instance *x = instance;
  *x->pointer[0] += x->slope;
  *x->pointer[1] -= x->slope;
  *x->pointer[2] -= x->slope;
  *x->pointer[3] += x->slope;
}

static void jacobian_reactive(void *instance, void *model, double a) {}
static void jacobian_transient(void *instance, void *model, double a) { jacobian(instance, model); }

static Node nodes[] = {
    {"a", "V", "A", NONE, NONE, NONE, NONE, false},
    {"c", "V", "A", NONE, NONE, NONE, NONE, false},
};
static Entry entries[] = {
    {{0, 0}, NONE, RESISTIVE},
    {{0, 1}, NONE, RESISTIVE},
    {{1, 0}, NONE, RESISTIVE},
    {{1, 1}, NONE, RESISTIVE},
};
static char *gm_name[] = {"gm"}, *v0_name[] = {"v0"};
static Param params[] = {
    {gm_name, 0, "conductance at 0 V", "S", INSTANCE_REAL, 0},
    {v0_name, 0, "voltage scale", "V", 0, 0},
};

uint32_t OSDI_VERSION_MAJOR = 0;
uint32_t OSDI_VERSION_MINOR = MINOR;
uint32_t OSDI_NUM_DESCRIPTORS = 1;
Descriptor OSDI_DESCRIPTORS[1] = {{
    .name = "va_sinh",
    .nodes = 2,
    .terminals = 2,
    .node = nodes,
    .entries = 4,
    .entry = entries,
    .collapsed_at = offsetof(Instance, collapsed),
    .params = 2,
    .instance_params = 1,
    .param = params,
    .mapping_at = offsetof(Instance, at),
    .pointers_at = offsetof(Instance, pointer),
    .step_bound_at = NONE,
    .instance_size = sizeof(Instance),
    .model_size = sizeof(Model),
    .access = access_value,
    .setup_model = setup_model,
    .setup_instance = setup_instance,
    .eval = eval,
    .load_noise = load_noise,
    .residual_resistive = residual,
    .residual_reactive = nothing,
    .limit_resistive = nothing,
    .limit_reactive = nothing,
    .rhs_dc = rhs_dc,
    .rhs_transient = rhs_transient,
    .jacobian_resistive = jacobian,
    .jacobian_reactive = jacobian_reactive,
    .jacobian_transient = jacobian_transient,
}};
