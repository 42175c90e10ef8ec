// nextstep_rt._core.cuda: the CUDA kernels on arrays. nextstep_rt/ops/cuda.py documents them. Every op is enqueued and
// not waited for; its outputs are given to it.
#include <pybind11/stl.h>

#include <numeric>

#include "core/check.h"
#include "core/tables.h"
#include "cuda/ops/attn_decode/attn_decode.h"
#include "cuda/ops/linear/linear.h"
#include "cuda/ops/rows/rows.h"
#include "python/cuda_linear.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

// The rows that a product reads: x itself, or its RMSNorm as `weight` dictates.
struct Rows {
  Array x, norm_weight;
  DType activations = DType::kFloat32;
  const void* data = nullptr;
  RmsStatistics norm;
};

// With a norm, x is the residual stream, float32, and the kernels go on in the dtype of the product's weights.
Rows read_rows(CudaCall& call, Obj x, Obj norm_weight, float eps, DType weights) {
  Rows rows;
  if (norm_weight.is_none()) {
    rows.x = call.read(x, "x", kFloats, {-1, -1});
    rows.activations = rows.x.view().dtype;
    rows.data = rows.x.data;
    return rows;
  }
  rows.x = call.read(x, "x", {Kind::kFloat32}, {-1, -1});
  const std::int64_t b = rows.x.shape[0], k = rows.x.shape[1];
  rows.norm_weight = call.read(norm_weight, "norm_weight", {Kind::kFloat32}, {k});
  rows.activations = weights;
  auto* scaled = call.scratch<std::byte>(static_cast<std::size_t>(b * k) * item_size(weights));
  auto* squares = call.scratch<float>(static_cast<std::size_t>(b));
  begin_rows({.residual = rows.x.floats(),
              .next_weight = rows.norm_weight.floats(),
              .x = scaled,
              .squares = squares,
              .rows = narrow(b),
              .d = narrow(k)},
             {.activations = weights, .stream = call.stream()});
  rows.data = scaled;
  rows.norm = {.squares = squares, .parts = 1, .width = narrow(k), .eps = eps};
  return rows;
}

LinearTask task_of(const Rows& rows) {
  LinearTask task;
  task.k = narrow(rows.x.shape[1]);
  task.rows = narrow(rows.x.shape[0]);
  task.x = rows.data;
  task.norm = rows.norm;
  return task;
}

Array read_matrix(const CudaCall& call, Obj weight, const char* name, std::int64_t n, std::int64_t k) {
  return call.read(weight, name, kFloats, {n, k});
}

void linear(Obj x, Obj weight, Obj bias, Obj residual, bool silu, Obj norm_weight, float eps, Obj out, Obj stream) {
  CudaCall call(x, "x", stream);
  const Array w = read_matrix(call, weight, "weight", -1, -1);
  const DType dtype = w.view().dtype;
  const Rows rows = read_rows(call, x, norm_weight, eps, dtype);
  const std::int64_t b = rows.x.shape[0], n = w.shape[0];
  check<InvalidRequest>(rows.x.shape[1] == w.shape[1], "x has shape ", print_shape(rows.x.shape), " and weight ",
                        print_shape(w.shape), ": their last dimensions must be the same");
  const Array bias_array = call.read_optional(bias, "bias", {n});
  const Array added = call.read_optional(residual, "residual", {b, n});
  const bool wide = call.read(out, "out", kFloats, {b, n}).kind == Kind::kFloat32;
  check<InvalidRequest>(wide || (rows.activations == DType::kBFloat16 && added.data == nullptr),
                        "out may be bfloat16 where x is, and there is no residual; make it float32");
  LinearTask task = task_of(rows);
  task.segments[0] = {.w = w.data, .bias = bias_array.floats(), .n = narrow(n)};
  task.segment_count = 1;
  task.epilogue = wide ? Epilogue::kStore : Epilogue::kActivate;
  task.silu = silu;
  task.residual = const_cast<float*>(added.floats());  // kStore only reads it
  task.y = call.output(out, "out", kFloats, {b, n}, {&rows.x, &w, &bias_array, &added, &rows.norm_weight});
  task.y_stride = n;
  if (b > 0 && n > 0) run_linear(call, task, dtype, rows.activations);
}

// x W^T alone, by the path of that name: for those who time one against the other.
void linear_by(const std::string& path, Obj x, Obj weight, Obj out, Obj stream) {
  check<InvalidRequest>(path == "tensor" || path == "fma", "path is '", path, "'; use 'tensor' or 'fma'");
  CudaCall call(x, "x", stream);
  const Array w = read_matrix(call, weight, "weight", -1, -1);
  const Rows rows = read_rows(call, x, py::none(), 0.0f, w.view().dtype);
  const std::int64_t b = rows.x.shape[0], n = w.shape[0];
  check<InvalidRequest>(rows.x.shape[1] == w.shape[1], "x has shape ", print_shape(rows.x.shape), " and weight ",
                        print_shape(w.shape), ": their last dimensions must be the same");
  LinearTask task = task_of(rows);
  task.segments[0] = {.w = w.data, .n = narrow(n)};
  task.segment_count = 1;
  task.y = call.output(out, "out", {Kind::kFloat32}, {b, n}, {&rows.x, &w});
  task.y_stride = n;
  if (b > 0 && n > 0)
    run_linear(call, task, w.view().dtype, rows.activations, path == "fma" ? LinearPath::kFma : LinearPath::kTensor);
}

void gated_linear(Obj x, Obj gate, Obj up, Obj gate_bias, Obj up_bias, Obj norm_weight, float eps, Obj out,
                  Obj stream) {
  CudaCall call(x, "x", stream);
  const Array g = read_matrix(call, gate, "gate", -1, -1);
  const Array u = call.read(up, "up", {g.kind}, g.shape);
  const DType dtype = g.view().dtype;
  const Rows rows = read_rows(call, x, norm_weight, eps, dtype);
  const std::int64_t b = rows.x.shape[0], n = g.shape[0];
  check<InvalidRequest>(rows.x.shape[1] == g.shape[1], "x has shape ", print_shape(rows.x.shape), " and gate ",
                        print_shape(g.shape), ": their last dimensions must be the same");
  const Array bias = call.read_optional(gate_bias, "gate_bias", {n}),
              bias2 = call.read_optional(up_bias, "up_bias", {n});
  const Kind kind = rows.activations == DType::kBFloat16 ? Kind::kBFloat16 : Kind::kFloat32;
  LinearTask task = task_of(rows);
  task.segments[0] = {.w = g.data,
                      .w2 = u.data,
                      .bias = bias.floats(),
                      .bias2 = bias2.floats(),
                      .n = narrow(n),
                      .kind = TileKind::kGated};
  task.segment_count = 1;
  task.epilogue = Epilogue::kGated;
  task.y = call.output(out, "out", {kind}, {b, n}, {&rows.x, &g, &u, &bias, &bias2, &rows.norm_weight});
  task.y_stride = n;
  if (b > 0 && n > 0) run_linear(call, task, dtype, rows.activations);
}

// Weights and biases come in the order q, k, v; `tables` are the cosines and sines of all positions.
void qkv_linear(Obj x, const std::vector<py::object>& weights, const std::vector<py::object>& biases,
                const std::vector<py::object>& tables, Obj places, Obj k_cache, Obj v_cache, Obj norm_weight, float eps,
                Obj out, Obj stream) {
  CudaCall call(x, "x", stream);
  check<InvalidRequest>(weights.size() == 3 && biases.size() == 3 && tables.size() == 2,
                        "give three weights, three biases and two tables");
  const Array q = read_matrix(call, weights[0], "q weight", -1, -1);
  const Rows rows = read_rows(call, x, norm_weight, eps, q.view().dtype);
  const Kind kind = rows.activations == DType::kBFloat16 ? Kind::kBFloat16 : Kind::kFloat32;
  const Array cache = call.read(k_cache, "k_cache", {kind}, {-1, -1, -1, -1});
  const std::int64_t h_kv = cache.shape[1], d_head = cache.shape[3], b = rows.x.shape[0], k = rows.x.shape[1];
  check<InvalidRequest>(d_head >= 2 && d_head % 2 == 0, "k_cache has shape ", print_shape(cache.shape),
                        "; rotary embedding needs an even head_dim");
  check<InvalidRequest>(q.shape[1] == k && q.shape[0] % d_head == 0, "the q weight has shape ", print_shape(q.shape),
                        "; it must be heads of ", d_head, " rows by ", k);
  const std::vector<std::int64_t> of_kv = {h_kv * d_head, k};
  const Array kw = call.read(weights[1], "k weight", {q.kind}, of_kv);
  const Array vw = call.read(weights[2], "v weight", {q.kind}, of_kv);
  const Array qb = call.read_optional(biases[0], "q bias", {q.shape[0]});
  const Array kb = call.read_optional(biases[1], "k bias", {of_kv[0]});
  const Array vb = call.read_optional(biases[2], "v bias", {of_kv[0]});
  const std::vector<std::int64_t> table = {cache.shape[2], d_head / 2};
  const Array cos = call.read(tables[0], "cos", {Kind::kFloat32}, table);
  const Array sin = call.read(tables[1], "sin", {Kind::kFloat32}, table);
  const Array place = call.read(places, "places", {Kind::kInt32}, {b, 2});
  LinearTask task = task_of(rows);
  task.segments[0] = {.w = q.data, .bias = qb.floats(), .n = narrow(q.shape[0]), .kind = TileKind::kRotary};
  task.segments[1] = {.w = kw.data, .bias = kb.floats(), .n = narrow(of_kv[0]), .kind = TileKind::kRotary};
  task.segments[2] = {.w = vw.data, .bias = vb.floats(), .n = narrow(of_kv[0])};
  task.segment_count = 3;
  task.epilogue = Epilogue::kQkv;
  task.d_head = narrow(d_head);
  task.h_kv = narrow(h_kv);
  task.capacity = cache.shape[2];
  const std::initializer_list<const Array*> inputs = {&rows.x, &q, &kw, &vw, &qb, &kb, &vb, &cos, &sin, &place};
  task.k_cache = call.output(k_cache, "k_cache", {kind}, cache.shape, inputs);
  task.v_cache = call.output(v_cache, "v_cache", {kind}, cache.shape, inputs);
  check<InvalidRequest>(task.k_cache != task.v_cache, "k_cache and v_cache are one array; they must be two");
  task.cos = cos.floats();
  task.sin = sin.floats();
  task.places = static_cast<const RowPlace*>(place.data);
  task.y = call.output(out, "out", {kind}, {b, q.shape[0] / d_head, d_head}, inputs);
  task.y_stride = q.shape[0];
  if (b > 0) run_linear(call, task, q.view().dtype, rows.activations);
}

void attn_decode(Obj q, Obj k_cache, Obj v_cache, Obj places, Obj starts, Obj out, Obj stream) {
  CudaCall call(q, "q", stream);
  const Array qa = call.read(q, "q", kFloats, {-1, -1, -1});
  const Array k = call.read(k_cache, "k_cache", {qa.kind}, {-1, -1, -1, qa.shape[2]});
  const Array v = call.read(v_cache, "v_cache", {qa.kind}, k.shape);
  const Array place = call.read(places, "places", {Kind::kInt32}, {qa.shape[0], 2});
  const Array start = starts.is_none() ? Array{} : call.read(starts, "starts", {Kind::kInt32}, {qa.shape[0]});
  AttnDecodeTask task{.q = qa.data,
                      .k = k.data,
                      .v = v.data,
                      .places = static_cast<const RowPlace*>(place.data),
                      .starts = static_cast<const std::int32_t*>(start.data),
                      .y = call.output(out, "out", {qa.kind}, qa.shape, {&qa, &k, &v, &place, &start}),
                      .rows = narrow(qa.shape[0]),
                      .h_q = narrow(qa.shape[1]),
                      .h_kv = narrow(k.shape[1]),
                      .d_head = narrow(qa.shape[2]),
                      .capacity = k.shape[2]};
  if (task.rows == 0) return;
  check<InvalidRequest>(task.h_kv >= 1, "k_cache has shape ", print_shape(k.shape), "; it needs a head");
  task.splits = attn_splits(call.traits().sm_count, task.rows, task.h_kv, task.capacity);
  const WorkspaceNeed need = attn_workspace(task);
  cuda::attn_decode(task,
                    {.partials = call.scratch<float>(need.partials),
                     .tickets = call.zeros<std::uint32_t>(need.tickets),
                     .partial_count = need.partials,
                     .ticket_count = need.tickets},
                    {.dtype = qa.view().dtype, .stream = call.stream()});
}

void rms_norm(Obj x, Obj weight, float eps, Obj out, Obj stream) {
  CudaCall call(x, "x", stream);
  const Array a = call.read(x, "x", {Kind::kFloat32}, {-1, -1});
  const Array w = call.read(weight, "weight", {Kind::kFloat32}, {a.shape[1]});
  auto* y = static_cast<float*>(call.output(out, "out", {Kind::kFloat32}, a.shape, {&a, &w}));
  if (a.numel() == 0) return;
  std::vector<std::int32_t> keep(static_cast<std::size_t>(a.shape[0]));
  std::iota(keep.begin(), keep.end(), 0);
  take_hidden({.residual = a.floats(),
               .norm = {.width = narrow(a.shape[1]), .eps = eps},
               .weight = w.floats(),
               .keep = call.placed<std::int32_t>(keep),
               .hidden = y,
               .rows = narrow(a.shape[0]),
               .d = narrow(a.shape[1])},
              {.stream = call.stream()});
}

}  // namespace

void register_cuda_ops(py::module_& m) {
  py::module_ cuda = m.def_submodule("cuda", "The CUDA kernels on arrays of a GPU.");
  cuda.def("linear", &linear);
  cuda.def("linear_by", &linear_by);
  cuda.def("gated_linear", &gated_linear);
  cuda.def("qkv_linear", &qkv_linear);
  cuda.def("attn_decode", &attn_decode);
  cuda.def("rms_norm", &rms_norm);
  register_device_array(cuda);
  register_cuda_fm_ops(cuda);
}

}  // namespace nsrt::python
