// Engine.
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "core/check.h"
#include "nextstep_rt/checkpoint.h"
#include "nextstep_rt/engine.h"
#include "python/arrays.h"
#include "python/dlpack_exchange.h"
#include "python/native_call.h"
#include "python/prefill_attention.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

// Name -> array from a mapping; the arrays' owners are appended to `owners`.
TensorMap read_tensors(const py::object& tensors, std::vector<py::object>& owners) {
  check<InvalidRequest>(py::hasattr(tensors, "items"), "tensors is a ",
                        py::type::of(tensors).attr("__name__").cast<std::string>(),
                        "; give a Checkpoint or a mapping from names to arrays");
  TensorMap views;
  for (const auto item : tensors.attr("items")()) {
    const auto pair = item.cast<py::tuple>();
    check<InvalidRequest>(py::isinstance<py::str>(pair[0]), "tensors has the key ", std::string(py::repr(pair[0])),
                          "; keys are the tensors' names");
    auto name = pair[0].cast<std::string>();
    if (name.starts_with("model.")) name.erase(0, 6);
    const Array array = read_array(pair[1], "tensor '" + name + "'");
    check<CheckpointError>(array.kind == Kind::kFloat32 || array.kind == Kind::kBFloat16, "tensor '", name,
                           "' must be float32 or bfloat16");
    owners.push_back(array.owner);
    check<CheckpointError>(views.emplace(name, array.view()).second, "tensor '", name,
                           "' is given twice, with and without 'model.'");
  }
  return views;
}

std::unique_ptr<Engine> make_engine(const ModelConfig& config, const py::object& tensors, const std::string& device,
                                    const std::string& dtype, std::optional<int> threads) {
  EngineOptions options;
  options.device = device;
  options.compute = dtype_from_name(dtype);
  options.threads = threads.value_or(0);
  check<InvalidRequest>(!threads || *threads >= 1, "threads is ", threads.value_or(0), "; it must be at least 1");
  // The last reference may go while the GIL is released: an engine that is refused lets go of its weights at once.
  const std::shared_ptr<std::vector<py::object>> owners(new std::vector<py::object>, [](auto* objects) {
    const py::gil_scoped_acquire gil;
    delete objects;
  });
  TensorMap views;
  if (py::isinstance<Checkpoint>(tensors)) {
    owners->push_back(tensors);
    views = tensors.cast<const Checkpoint&>().tensors();
  } else {
    views = read_tensors(tensors, *owners);
  }
  const NativeCall call;
  return std::make_unique<Engine>(config, views, options, std::shared_ptr<const void>(owners));
}

std::map<std::string, std::uint64_t> memory_dict(const MemoryUse& use) {
  return {{"weights", use.weights}, {"converted", use.converted}, {"kv_cache", use.kv_cache}, {"scratch", use.scratch}};
}

void prefill(Engine& self, const py::object& embeds, const py::object& mask, std::int64_t max_new_tokens,
             const py::object& progress) {
  const Array e = read_array(embeds, "embeds", {Kind::kFloat32}, {-1, -1, self.config().hidden_size});
  Array m;
  if (!mask.is_none()) m = read_array(mask, "mask", {Kind::kBool}, {e.shape[0], e.shape[1]});
  const NativeCall call;
  self.prefill(
      e.span<float>(), m.span<std::uint8_t>(), e.shape[0], e.shape[1], max_new_tokens,
      [&](std::int64_t done, std::int64_t total) { return report(progress, [&] { return progress(done, total); }); });
}

std::vector<std::uint64_t> read_seeds(const py::object& seeds, std::int64_t images) {
  std::vector<std::uint64_t> out;
  for (const auto seed : seeds) {
    try {
      out.push_back(seed.cast<std::uint64_t>());
    } catch (const py::cast_error&) {
      throw InvalidRequest(str("seed ", std::string(py::repr(seed)), " is not an integer between 0 and 2^64 - 1"));
    }
  }
  check<InvalidRequest>(static_cast<std::int64_t>(out.size()) == images, out.size(), " seeds for ", images,
                        " images; give one for each");
  return out;
}

py::array_t<float> decode(Engine& self, const SamplingParams& params, std::optional<std::int64_t> count,
                          const py::object& noise, const py::object& seeds, const py::object& callback) {
  const std::int64_t images = self.images(params.branches), d = self.config().token_dim();
  check<InvalidRequest>(noise.is_none() != seeds.is_none(), "decode needs either noise or seeds");
  const std::int64_t n = count.value_or(params.num_tokens - self.position());
  check<InvalidRequest>(n >= 1 && n <= params.num_tokens, "cannot make ", n, " tokens: ", self.position(), " of ",
                        params.num_tokens, " are made");
  Array given;
  std::vector<std::uint64_t> drawn;
  if (noise.is_none())
    drawn = read_seeds(seeds, images);
  else
    given = read_array(noise, "noise", {Kind::kFloat32}, {n, 1 + params.num_inference_steps, images, d});
  py::array_t<float> out = make_floats({images, n, d});
  // Read-only: the memory is the result's.
  const auto so_far = [&](std::int64_t made) {
    py::object view = out[py::make_tuple(py::ellipsis(), py::slice(0, made, 1), py::slice(0, d, 1))];
    view.attr("setflags")(py::arg("write") = false);
    return view;
  };
  const std::span<float> data(out.mutable_data(), static_cast<std::size_t>(out.size()));
  const std::int64_t before = self.position();
  std::int64_t made = 0;
  {
    const NativeCall call;
    made = self.decode(params, n, given.span<float>(), drawn, data, [&](std::int64_t done, std::int64_t total) {
      return report(callback, [&] { return callback(done, total, so_far(done - before)); });
    });
  }
  if (made == n) return out;
  return so_far(made).attr("copy")().cast<py::array_t<float>>();
}

py::array_t<float> state(const Engine& self, const std::string& name) {
  static constexpr std::pair<const char*, StateBuffer> kBuffers[] = {{"hidden", StateBuffer::kHidden},
                                                                     {"cond", StateBuffer::kCond},
                                                                     {"modulation", StateBuffer::kModulation},
                                                                     {"velocity", StateBuffer::kVelocity},
                                                                     {"latent", StateBuffer::kLatent}};
  for (const auto& [known, buffer] : kBuffers) {
    if (name != known) continue;
    const ModelConfig& c = self.config();
    std::int64_t width = c.token_dim();
    if (buffer == StateBuffer::kHidden || buffer == StateBuffer::kCond) width = c.hidden_size;
    if (buffer == StateBuffer::kModulation) width = c.fm_modulation_dim();
    const std::vector<float> values = self.state(buffer);
    return to_numpy(values, {static_cast<std::int64_t>(values.size()) / width, width});
  }
  throw InvalidRequest(str("no state named '", name, "'; choose hidden, cond, modulation, velocity or latent"));
}

py::array_t<float> embed_tokens(const Engine& self, const py::object& ids) {
  const Array a = read_array(ids, "ids", {Kind::kInt64}, {-1});
  return to_numpy(self.embed_tokens(a.span<std::int64_t>()), {a.shape[0], self.config().hidden_size});
}

py::array_t<float> project_tokens(const Engine& self, const py::object& tokens) {
  const Array a = read_array(tokens, "tokens", {Kind::kFloat32}, {-1, self.config().token_dim()});
  std::vector<float> out;
  {
    const NativeCall call;
    out = self.project_tokens(a.span<float>());
  }
  return to_numpy(out, {a.shape[0], self.config().hidden_size});
}

void register_lent_array(py::module_& m) {
  py::class_<LentArray>(m, "LentArray",
                        "Memory of a GPU, lent for one call to whoever works on the call's stream; speaks DLPack.")
      .def(
          "__dlpack__",
          [](const py::object& self, const py::object& stream, const py::object& max_version, const py::object&,
             const py::object&) { return self.cast<const LentArray&>().dlpack(self, stream, max_version); },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none(),
          "stream: the call's, or -1. Raises InvalidRequest for another one, and after the call.")
      .def("__dlpack_device__",
           [](const LentArray& self) {
             const DLDevice device = self.tensor().device;
             return std::pair(static_cast<int>(device.device_type), static_cast<int>(device.device_id));
           })
      .def_property_readonly("shape",
                             [](const LentArray& self) -> py::typing::Tuple<py::int_, py::ellipsis> {
                               return py::tuple(py::cast(self.tensor().shape));
                             })
      .def_property_readonly("dtype", [](const LentArray& self) { return name_of(self.tensor().kind); });
}

template <class T>
std::map<std::string, T> by_stage(const Engine& engine, T StageProfile::* figure) {
  std::map<std::string, T> out;
  for (const StageProfile& stage : engine.stages()) out[stage.name] = stage.*figure;
  return out;
}

}  // namespace

void register_engine(py::module_& m) {
  m.attr("MAX_ROWS") = kMaxRows;
  register_lent_array(m);
  py::class_<Engine>(m, "Engine", "The decode loop: prefill rows of embeddings, then generate image tokens.")
      .def(py::init(&make_engine), py::arg("config"), py::arg("tensors"), py::kw_only(), py::arg("device") = "cpu",
           py::arg("dtype") = "bfloat16", py::arg("threads") = py::none(),
           "tensors: a Checkpoint, or a mapping name -> array (float32 or bfloat16, borrowed). "
           "Raises CheckpointError on missing, unknown or misshapen tensors.")
      .def_property_readonly("config", &Engine::config, py::return_value_policy::reference_internal)
      .def_property_readonly("dtype", [](const Engine& e) { return name_of(e.compute()); })
      .def_property_readonly("threads", &Engine::threads)
      .def_property_readonly("backend", &Engine::backend)
      .def_property_readonly("rows", &Engine::rows, "Rows prefilled; 0 before.")
      .def_property_readonly("position", &Engine::position, "Image tokens made since prefill.")
      .def("embed_tokens", &embed_tokens, py::arg("ids"), "int64 [n] -> float32 [n, hidden_size].")
      .def("project_tokens", &project_tokens, py::arg("tokens"),
           "Image tokens float32 [n, token_dim] -> embeddings float32 [n, hidden_size].")
      .def(
          "plan",
          [](const Engine& e, std::int64_t rows, std::int64_t positions, std::int64_t steps) {
            return memory_dict(e.plan(rows, positions, steps));
          },
          py::arg("rows"), py::arg("positions"), py::arg("steps"),
          "Bytes a request would need: weights, converted, kv_cache, scratch.")
      .def(
          "memory", [](const Engine& e) { return memory_dict(e.memory()); }, "Bytes held now, as in plan().")
      .def_property_readonly("takes_prefill_attention", &Engine::takes_prefill_attention,
                             "Whether set_prefill_attention is for this engine: on a CUDA device, in bfloat16, in a "
                             "build with CUTLASS.")
      .def(
          "set_prefill_attention", &set_prefill_attention, py::arg("attention"),
          "attention(q, k, v, out, stream) takes the place of the engine's kernel where prefill has many rows, called "
          "once a layer for each sequence; None returns to the kernel. It enqueues causal attention on the CUDA stream "
          "of that address: out = softmax(q k^T) v, where the last row of q sees all positions, the row before all but "
          "one, and so on. q (scaled already) and out [rows, heads, head_dim], k and v [kv heads, positions, "
          "head_dim], bfloat16 LentArrays. What it raises reaches the caller of prefill. Raises InvalidRequest for "
          "an engine without takes_prefill_attention.")
      .def("prefill", &prefill, py::arg("embeds"), py::arg("mask") = py::none(), py::kw_only(),
           py::arg("max_new_tokens"), py::arg("progress") = py::none(),
           "embeds float32 [rows, width, hidden_size]; mask bool [rows, width], False where a column is padding. "
           "progress(done, total) may return False to stop, which raises Cancelled.")
      .def("decode", &decode, py::arg("params"), py::arg("count") = py::none(), py::kw_only(),
           py::arg("noise") = py::none(), py::arg("seeds") = py::none(), py::arg("callback") = py::none(),
           "Makes `count` more tokens (default: all that are left) of each image: float32 [images, made, token_dim]. "
           "noise float32 [count, 1 + steps, images, token_dim], or seeds, one integer an image. "
           "callback(position, num_tokens, tokens made by this call) may return False to stop.")
      .def("reset", &Engine::reset, "Forgets the rows; memory is kept.")
      .def("profile", &Engine::profile, py::arg("on"),
           "From now on decode sums up the seconds of its stages, from zero; or no more. No number of a token changes. "
           "Raises InvalidRequest on a CUDA device, where a token is one launch.")
      .def(
          "stage_seconds", [](const Engine& e) { return by_stage(e, &StageProfile::seconds); },
          "Seconds of each stage of the tokens made since profile(True): noise, image_in, norm_qkv, rope_append, "
          "attention, attn_out, mlp, condition, fm_modulation, fm_steps, finish, other; together, the tokens' time.")
      .def(
          "stage_barriers", [](const Engine& e) { return by_stage(e, &StageProfile::barriers); },
          "How often the engine's threads met at a barrier in each stage since profile(True).")
      .def("state", &state, py::arg("name"),
           "An intermediate of the last token, float32 [rows, width]: hidden, cond, modulation, velocity or latent.");
}

}  // namespace nsrt::python
