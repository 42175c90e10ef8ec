// nextstep_rt._core.cuda: the flow-matching head's kernels on arrays. nextstep_rt/ops/cuda.py documents them.
#include <pybind11/stl.h>

#include <algorithm>
#include <list>

#include "core/check.h"
#include "cuda/ops/fm_head/fm_head.h"
#include "cuda/ops/rows/rows.h"
#include "python/cuda_linear.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

void add_position(Obj hidden, Obj position, Obj out, Obj stream) {
  CudaCall call(hidden, "hidden", stream);
  const Array h = call.read(hidden, "hidden", {Kind::kFloat32}, {-1, -1});
  const Array p = call.read_optional(position, "position", {h.shape[1]});
  const bool half = call.read(out, "out", kFloats, h.shape).kind == Kind::kBFloat16;
  if (h.numel() == 0) return;
  const std::int32_t first = 0;
  condition_rows({.hidden = h.floats(),
                  .position = p.floats(),
                  .token = call.placed<std::int32_t>({&first, 1}),
                  .x = call.output(out, "out", kFloats, h.shape, {&h, &p}),
                  .rows = narrow(h.shape[0]),
                  .d = narrow(h.shape[1])},
                 {.activations = half ? DType::kBFloat16 : DType::kFloat32, .stream = call.stream()});
}

void fm_modulations(Obj condition, Obj times, Obj cond_weight, Obj cond_bias, Obj weight, Obj bias, Obj out,
                    Obj stream) {
  CudaCall call(condition, "condition", stream);
  const Array c = call.read(condition, "condition", kFloats, {-1, -1});
  const Array t = call.read(times, "times", {Kind::kFloat32}, {-1, -1});
  const std::int64_t rows = c.shape[0], steps = t.shape[0], d = t.shape[1];
  const Array cw = call.read(cond_weight, "cond_weight", kFloats, {d, c.shape[1]});
  const Array cb = call.read_optional(cond_bias, "cond_bias", {d});
  const Array w = call.read(weight, "weight", {cw.kind}, {-1, d});
  const std::int64_t n = w.shape[0], all = steps * rows;
  const Array b = call.read_optional(bias, "bias", {n});
  const DType weights = cw.view().dtype, activations = c.view().dtype;
  auto* y = static_cast<std::byte*>(call.output(out, "out", {c.kind}, {all, n}, {&c, &t, &cw, &cb, &w, &b}));
  if (all == 0 || n == 0) return;
  const std::size_t width = item_size(activations);
  auto* inputs = call.scratch<std::byte>(static_cast<std::size_t>(all * d) * width);
  LinearTask first;
  first.segments[0] = {.w = cw.data, .bias = cb.floats(), .n = narrow(d)};
  first.segment_count = 1;
  first.k = narrow(c.shape[1]);
  first.rows = narrow(rows);
  first.x = c.data;
  first.epilogue = Epilogue::kTimes;
  first.y = inputs;
  first.y_stride = d;
  first.times = t.floats();
  first.steps = narrow(steps);
  run_linear(call, first, weights, activations);
  const bool tensor_cores = weights == DType::kBFloat16 && activations == DType::kBFloat16;
  const std::int64_t chunk = tensor_cores ? kMaxLinearRows : 16;
  for (std::int64_t i = 0; i < all; i += chunk) {
    LinearTask second;
    second.segments[0] = {.w = w.data, .bias = b.floats(), .n = narrow(n)};
    second.segment_count = 1;
    second.k = narrow(d);
    second.rows = narrow(std::min(chunk, all - i));
    second.x = inputs + static_cast<std::size_t>(i * d) * width;
    second.epilogue = Epilogue::kActivate;
    second.y = y + static_cast<std::size_t>(i * n) * width;
    second.y_stride = n;
    run_linear(call, second, weights, activations);
  }
}

// Six numbers a step: kind, time index, draw, cx, cv, ce.
std::vector<FmStep> read_steps(const std::vector<double>& plan, std::int64_t times, std::int64_t draws) {
  check<InvalidRequest>(!plan.empty() && plan.size() % 6 == 0, "plan has ", plan.size(), " numbers; it needs 6 a step");
  std::vector<FmStep> steps;
  for (std::size_t i = 0; i < plan.size(); i += 6) {
    const double* s = &plan[i];
    check<InvalidRequest>(s[0] >= 0 && s[0] <= 2, "step ", i / 6, " has the kind ", s[0], "; kinds are 0, 1 and 2");
    check<InvalidRequest>(s[1] >= 0 && s[1] < static_cast<double>(times), "step ", i / 6, " is at time ", s[1],
                          ", and there are modulations of ", times);
    check<InvalidRequest>(s[2] >= -1 && s[2] < static_cast<double>(draws), "step ", i / 6, " takes draw ", s[2],
                          ", and the noise has ", draws);
    steps.push_back({.kind = static_cast<std::int32_t>(s[0]),
                     .time = static_cast<std::int32_t>(s[1]),
                     .draw = static_cast<std::int32_t>(s[2]),
                     .cx = static_cast<float>(s[3]),
                     .cv = static_cast<float>(s[4]),
                     .ce = static_cast<float>(s[5])});
  }
  return steps;
}

// The arrays of one call of fm_head.
class FmHeadOp {
 public:
  FmHeadOp(Obj modulations, Obj noise, std::int64_t branches, Obj stream)
      : call_(modulations, "modulations", stream),
        modulations_(call_.read(modulations, "modulations", kFloats, {-1, -1})),
        noise_(call_.read(noise, "noise", {Kind::kFloat32}, {-1, -1, -1})) {
    check<InvalidRequest>(branches >= 1 && branches <= 3, "branches is ", branches, "; it must be 1, 2 or 3");
    task_.branches = narrow(branches);
    task_.images = narrow(noise_.shape[1]);
    task_.d_tok = narrow(noise_.shape[2]);
  }

  // input, output: weight, bias each; then of each block: norm, fc1, fc2: weight, bias each.
  void read_weights(const std::vector<py::object>& weights) {
    check<InvalidRequest>(weights.size() >= 10 && weights.size() % 6 == 4, "weights are 4 arrays and 6 a block, not ",
                          weights.size());
    const Array& input = keep(call_.read(weights[0], "input weight", kFloats, {-1, task_.d_tok}));
    kind_ = input.kind;
    const std::int64_t d = input.shape[0];
    task_.d = narrow(d);
    task_.layers = narrow(static_cast<std::int64_t>(weights.size() - 4) / 6);
    task_.input = {input.data, vector(weights[1], "input bias", d)};
    task_.output = {matrix(weights[2], "output weight", task_.d_tok, d),
                    vector(weights[3], "output bias", task_.d_tok)};
    std::int64_t d_mlp = -1;
    for (std::size_t i = 4; i < weights.size(); i += 6) {
      FmBlock block;
      block.norm_weight = vector(weights[i], "norm weight", d);
      block.norm_bias = vector(weights[i + 1], "norm bias", d);
      const Array& fc1 = keep(call_.read(weights[i + 2], "fc1 weight", {kind_}, {d_mlp, d}));
      d_mlp = fc1.shape[0];
      block.fc1 = {fc1.data, vector(weights[i + 3], "fc1 bias", d_mlp)};
      block.fc2 = {matrix(weights[i + 4], "fc2 weight", d, d_mlp), vector(weights[i + 5], "fc2 bias", d)};
      blocks_.push_back(block);
    }
    task_.d_mlp = narrow(d_mlp);
    const std::int64_t rows = std::int64_t{task_.branches} * task_.images, n = (3 * std::int64_t{task_.layers} + 2) * d;
    check<InvalidRequest>(rows > 0 && modulations_.shape[0] % rows == 0 && modulations_.shape[1] == n,
                          "modulations has shape ", print_shape(modulations_.shape), "; it must be [times * ", rows,
                          ", ", n, "]");
  }

  void read_outlet(const std::vector<py::object>& image_in, Obj embeds) {
    if (image_in.empty()) return;
    check<InvalidRequest>(image_in.size() == 2, "image_in is a weight and a bias");
    const Array& w = keep(call_.read(image_in[0], "image_in weight", {kind_}, {-1, task_.d_tok}));
    const std::int64_t rows = std::int64_t{task_.branches} * task_.images, n = w.shape[0];
    FmOutlet& outlet = task_.outlet;
    outlet.image_in = {w.data, vector(image_in[1], "image_in bias", n)};
    outlet.d_model = narrow(n);
    outlet.residual = static_cast<float*>(output(embeds, "embeds", {rows, n}));
    // The next norm's scaled rows and squares are not asked for: any weight will do.
    outlet.next_weight = outlet.image_in.bias;
    outlet.x = call_.scratch<std::byte>(static_cast<std::size_t>(rows * n) * size_of(modulations_.kind));
    outlet.squares = call_.scratch<float>(static_cast<std::size_t>(rows * call_.traits().sm_count));
  }

  void run(const std::vector<double>& plan, FmInputs inputs, bool renorm, bool normalize, Obj tokens) {
    const std::int64_t rows = std::int64_t{task_.branches} * task_.images;
    const auto device_steps = read_steps(plan, modulations_.shape[0] / rows, noise_.shape[0]);
    task_.renorm = renorm;
    task_.normalize = normalize;
    task_.modulations = modulations_.data;
    task_.blocks = call_.placed<FmBlock>(blocks_);
    task_.steps = call_.placed<FmStep>(device_steps);
    task_.step_count = narrow(static_cast<std::int64_t>(device_steps.size()));
    // The noise lies behind the scales.
    const auto noise_bytes = static_cast<std::size_t>(noise_.numel()) * sizeof(float);
    auto* given = call_.scratch<std::byte>(sizeof(FmInputs) + noise_bytes);
    std::uint32_t words[sizeof(FmInputs) / 4];
    std::memcpy(words, &inputs, sizeof inputs);
    place_words(given, words, call_.stream());
    check_cuda(
        cudaMemcpyAsync(given + sizeof(FmInputs), noise_.data, noise_bytes, cudaMemcpyDeviceToDevice, call_.stream()),
        "a copy of the noise");
    task_.inputs = reinterpret_cast<const FmInputs*>(given);
    task_.tokens = static_cast<float*>(output(tokens, "tokens", {task_.images, task_.d_tok}));
    task_.velocity = call_.scratch<float>(static_cast<std::size_t>(rows * task_.d_tok));
    task_.latent = call_.scratch<float>(static_cast<std::size_t>(task_.images * task_.d_tok));
    task_.launches = call_.zeros<std::uint32_t>(1);
    const std::size_t exchanges = fm_workspace_words(task_);
    cuda::fm_head(task_, {.words = call_.zeros<std::uint64_t>(exchanges), .word_count = exchanges},
                  {.weights = kind_ == Kind::kBFloat16 ? DType::kBFloat16 : DType::kFloat32,
                   .activations = modulations_.view().dtype,
                   .sm_count = call_.traits().sm_count,
                   .shared_limit = call_.traits().shared_limit,
                   .stream = call_.stream()});
  }

 private:
  const Array& keep(Array array) { return arrays_.emplace_back(std::move(array)); }
  const void* matrix(Obj array, const char* name, std::int64_t n, std::int64_t k) {
    return keep(call_.read(array, name, {kind_}, {n, k})).data;
  }
  const float* vector(Obj array, const char* name, std::int64_t n) {
    return keep(call_.read(array, name, {Kind::kFloat32}, {n})).floats();
  }
  void* output(Obj array, const char* name, const std::vector<std::int64_t>& shape) {
    return call_.output(array, name, {Kind::kFloat32}, shape, {&modulations_, &noise_});
  }

  CudaCall call_;
  Array modulations_, noise_;
  std::list<Array> arrays_;
  Kind kind_ = Kind::kFloat32;  // of the weights
  FmHeadTask task_;
  std::vector<FmBlock> blocks_;
};

void fm_head(const std::vector<py::object>& weights, Obj modulations, Obj noise, const std::vector<double>& plan,
             std::int64_t branches, float guidance, float image_guidance, bool renorm, bool normalize,
             const std::vector<py::object>& image_in, Obj tokens, Obj embeds, Obj stream) {
  FmHeadOp op(modulations, noise, branches, stream);
  op.read_weights(weights);
  op.read_outlet(image_in, embeds);
  op.run(plan, {.guidance = guidance, .image_guidance = image_guidance}, renorm, normalize, tokens);
}

}  // namespace

void register_cuda_fm_ops(py::module_& cuda) {
  cuda.def("add_position", &add_position);
  cuda.def("fm_modulations", &fm_modulations);
  cuda.def("fm_head", &fm_head);
}

}  // namespace nsrt::python
