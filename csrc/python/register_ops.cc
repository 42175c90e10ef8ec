// nextstep_rt._core.op_*: the CPU ops on arrays. nextstep_rt/ops.py documents them.
#include <pybind11/stl.h>

#include <map>
#include <optional>

#include "core/check.h"
#include "core/solver.h"
#include "core/tables.h"
#include "cpu/isa.h"
#include "cpu/ops.h"
#include "python/arrays.h"
#include "python/native_call.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

using Isa = std::optional<std::string>;

const cpu::KernelTable& table(const Isa& isa) { return isa ? cpu::kernels(*isa) : cpu::kernels(); }

py::array_t<float> linear(const py::object& x, const py::object& weight, const py::object& bias,
                          const py::object& residual, bool silu, bool round_x, int threads, const Isa& isa) {
  const Array w = read_array(weight, "weight", {Kind::kFloat32, Kind::kBFloat16}, {-1, -1});
  const std::int64_t n = w.shape[0], k = w.shape[1];
  const Array a = read_array(x, "x", {Kind::kFloat32}, {-1, k});
  const Array b = read_optional(bias, "bias", {n});
  const Array r = read_optional(residual, "residual", {a.shape[0], n});
  py::array_t<float> y = make_floats({a.shape[0], n});
  LinearParams p{.w = {w.data, w.view().dtype, n, k},
                 .bias = b.floats(),
                 .x = a.floats(),
                 .residual = r.floats(),
                 .y = y.mutable_data(),
                 .b = a.shape[0],
                 .silu = silu,
                 .round_x = round_x};
  const cpu::KernelTable& kernels = table(isa);
  const NativeCall call;
  cpu::Pool pool(threads);
  cpu::linear(kernels, p, pool);
  return y;
}

py::array_t<float> rms_norm(const py::object& x, const py::object& weight, float eps, const Isa& isa) {
  const Array a = read_array(x, "x", {Kind::kFloat32}, {-1, -1});
  const Array w = read_array(weight, "weight", {Kind::kFloat32}, {a.shape[1]});
  py::array_t<float> y = make_floats(a.shape);
  cpu::rms_norm(table(isa), {a.floats(), w.floats(), y.mutable_data(), a.shape[0], a.shape[1], eps});
  return y;
}

py::array_t<float> layer_norm(const py::object& x, const py::object& weight, const py::object& bias,
                              const py::object& shift, const py::object& scale, float eps, const Isa& isa) {
  const Array a = read_array(x, "x", {Kind::kFloat32}, {-1, -1});
  const Array w = read_optional(weight, "weight", {a.shape[1]}), b = read_optional(bias, "bias", {a.shape[1]});
  const Array sh = read_optional(shift, "shift", a.shape), sc = read_optional(scale, "scale", a.shape);
  check<InvalidRequest>((w.data == nullptr) == (b.data == nullptr), "give both weight and bias, or neither");
  check<InvalidRequest>((sh.data == nullptr) == (sc.data == nullptr), "give both shift and scale, or neither");
  py::array_t<float> y = make_floats(a.shape);
  cpu::layer_norm(table(isa), {a.floats(), w.floats(), b.floats(), sh.floats(), sc.floats(), y.mutable_data(),
                               a.shape[0], a.shape[1], eps});
  return y;
}

py::array_t<float> rope(const py::object& x, const py::object& positions, double theta, const Isa& isa) {
  const Array a = read_array(x, "x", {Kind::kFloat32}, {-1, -1, -1});
  const Array p = read_array(positions, "positions", {Kind::kInt64}, {a.shape[0]});
  check<InvalidRequest>(a.shape[2] % 2 == 0, "head_dim is ", a.shape[2], "; rotary embedding needs an even one");
  check<InvalidRequest>(theta > 0, "theta is ", theta, "; it must be positive");
  py::array_t<float> y = make_floats(a.shape);
  cpu::rope(table(isa), {a.floats(), static_cast<const std::int64_t*>(p.data), y.mutable_data(), a.shape[0], a.shape[1],
                         a.shape[2], theta});
  return y;
}

py::array_t<float> attention(const py::object& q, const py::object& k, const py::object& v, const py::object& lengths,
                             int threads, const Isa& isa) {
  const Array qa = read_array(q, "q", {Kind::kFloat32}, {-1, -1, -1});
  const std::int64_t b = qa.shape[0], h_q = qa.shape[1], d = qa.shape[2];
  const Array ka = read_array(k, "k", {Kind::kFloat32, Kind::kBFloat16}, {b, -1, -1, d});
  const Array va = read_array(v, "v", {ka.kind}, ka.shape);
  const Array la = read_array(lengths, "lengths", {Kind::kInt64}, {b});
  const std::int64_t h_kv = ka.shape[1], capacity = ka.shape[2];
  check<InvalidRequest>(h_kv >= 1 && h_q % h_kv == 0, h_q, " query heads cannot share ", h_kv, " key/value heads");
  const auto* length = static_cast<const std::int64_t*>(la.data);
  for (std::int64_t r = 0; r < b; ++r)
    check<InvalidRequest>(length[r] >= 1 && length[r] <= capacity, "lengths[", r, "] is ", length[r],
                          "; it must be between 1 and the capacity ", capacity);
  py::array_t<float> y = make_floats(qa.shape);
  if (b == 0) return y;
  const AttentionParams p{.q = qa.floats(),
                          .k = ka.data,
                          .v = va.data,
                          .kv_dtype = ka.view().dtype,
                          .lengths = length,
                          .y = y.mutable_data(),
                          .b = b,
                          .h_q = h_q,
                          .h_kv = h_kv,
                          .d_head = d,
                          .capacity = capacity};
  const cpu::KernelTable& kernels = table(isa);
  const NativeCall call;
  cpu::Pool pool(threads);
  cpu::attention(kernels, p, pool);
  return y;
}

py::array_t<float> silu_mul(const py::object& gate, const py::object& up, const Isa& isa) {
  const Array g = read_array(gate, "gate", {Kind::kFloat32}, {-1, -1});
  const Array u = read_array(up, "up", {Kind::kFloat32}, g.shape);
  py::array_t<float> y = make_floats(g.shape);
  cpu::silu_mul(table(isa), {g.floats(), u.floats(), y.mutable_data(), g.numel()});
  return y;
}

py::array_t<float> guidance(const py::object& v, std::int64_t branches, float scale, float image_scale, bool renorm,
                            const Isa& isa) {
  const Array a = read_array(v, "v", {Kind::kFloat32}, {-1, -1});
  check<InvalidRequest>(branches >= 1 && branches <= 3 && a.shape[0] % branches == 0, a.shape[0],
                        " rows are not 1, 2 or 3 (branches is ", branches, ") blocks of equally many");
  const std::int64_t images = a.shape[0] / branches;
  py::array_t<float> y = make_floats({images, a.shape[1]});
  cpu::guidance(table(isa), {a.floats(), y.mutable_data(), branches, images, a.shape[1], scale, image_scale, renorm});
  return y;
}

py::array_t<float> solver_update(const py::object& x, const py::object& v, const py::object& noise, float cx, float cv,
                                 float ce, const Isa& isa) {
  const Array a = read_array(x, "x", {Kind::kFloat32}, {-1, -1});
  const Array va = read_array(v, "v", {Kind::kFloat32}, a.shape);
  const Array na = read_optional(noise, "noise", a.shape);
  check<InvalidRequest>(na.data != nullptr || ce == 0, "ce is ", ce, " but there is no noise");
  py::array_t<float> y = to_numpy({a.floats(), a.floats() + a.numel()}, a.shape);
  cpu::solver_update(table(isa), {y.mutable_data(), va.floats(), na.floats(), a.numel(), cx, cv, ce});
  return y;
}

py::array_t<float> sinusoid(const std::vector<double>& times) {
  py::array_t<float> y = make_floats({static_cast<std::int64_t>(times.size()), kTimeDims});
  for (std::size_t i = 0; i < times.size(); ++i)
    time_sinusoid(times[i], y.mutable_data() + static_cast<std::int64_t>(i) * kTimeDims);
  return y;
}

std::vector<std::map<std::string, py::object>> solver_plan(const SamplingParams& params) {
  static constexpr const char* kKinds[] = {"update", "heun_predict", "heun_correct"};
  std::vector<std::map<std::string, py::object>> out;
  const SolverPlan plan = make_solver_plan(params);
  for (const SolverStep& s : plan.steps)
    out.push_back({{"kind", py::str(kKinds[static_cast<std::size_t>(s.kind)])},
                   {"time", py::float_(plan.times[static_cast<std::size_t>(s.time)])},
                   {"time_index", py::int_(s.time)},
                   {"draw", py::int_(s.draw)},
                   {"cx", py::float_(s.cx)},
                   {"cv", py::float_(s.cv)},
                   {"ce", py::float_(s.ce)}});
  return out;
}

}  // namespace

void register_ops(py::module_& m) {
  const auto isa = py::arg("isa") = py::none();
  const auto threads = py::arg("threads") = 1;
  const auto none = [](const char* name) { return py::arg(name) = py::none(); };
  m.def("op_linear", &linear, py::arg("x"), py::arg("weight"), none("bias"), none("residual"), py::arg("silu") = false,
        py::arg("round_x") = false, threads, isa);
  m.def("op_rms_norm", &rms_norm, py::arg("x"), py::arg("weight"), py::arg("eps"), isa);
  m.def("op_layer_norm", &layer_norm, py::arg("x"), none("weight"), none("bias"), none("shift"), none("scale"),
        py::kw_only(), py::arg("eps"), isa);
  m.def("op_rope", &rope, py::arg("x"), py::arg("positions"), py::arg("theta"), isa);
  m.def("op_attention", &attention, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("lengths"), threads, isa);
  m.def("op_silu_mul", &silu_mul, py::arg("gate"), py::arg("up"), isa);
  m.def("op_guidance", &guidance, py::arg("v"), py::arg("branches"), py::arg("scale"), py::arg("image_scale"),
        py::arg("renorm"), isa);
  m.def("op_solver_update", &solver_update, py::arg("x"), py::arg("v"), none("noise"), py::kw_only(), py::arg("cx"),
        py::arg("cv"), py::arg("ce"), isa);
  m.def("op_time_sinusoid", &sinusoid, py::arg("times"));
  m.def("op_solver_plan", &solver_plan, py::arg("params"));
}

}  // namespace nsrt::python
