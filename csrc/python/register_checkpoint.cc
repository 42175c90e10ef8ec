// ModelConfig, Tensor, Checkpoint and token_cost.
#include <pybind11/functional.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <map>

#include "core/check.h"
#include "core/cost.h"
#include "nextstep_rt/checkpoint.h"
#include "nextstep_rt/engine.h"
#include "python/arrays.h"
#include "python/dlpack_exchange.h"
#include "python/native_call.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

// One weight of a checkpoint, borrowed from its mapping.
struct Tensor {
  TensorView view;
  py::object owner;
};

py::capsule tensor_dlpack(const Tensor& self, const py::object&, const py::object& max_version,
                          const py::object& dl_device, const py::object& copy) {
  if (!dl_device.is_none() && !dl_device.equal(py::make_tuple(static_cast<int>(kDLCPU), 0)))
    throw py::buffer_error("a checkpoint's tensors are in host memory; copy them to another device after reading");
  const bool versioned = takes_versioned(max_version);
  const TensorView& view = self.view;
  DlpackExport tensor{.data = const_cast<void*>(view.data),
                      .kind = view.dtype == DType::kBFloat16 ? Kind::kBFloat16 : Kind::kFloat32,
                      .shape = view.shape};
  if (copy.is_none() || !copy.cast<bool>()) return export_dlpack(tensor, self.owner, versioned);
  const py::bytes bytes(static_cast<const char*>(view.data), view.nbytes());
  tensor.data = PyBytes_AS_STRING(bytes.ptr());
  return export_dlpack(tensor, bytes, versioned);
}

Tensor get_tensor(const py::object& self, const std::string& name) {
  const auto& tensors = self.cast<const Checkpoint&>().tensors();
  const auto it = tensors.find(name);
  if (it == tensors.end()) throw py::key_error(name);
  return {it->second, self};
}

std::vector<std::string> names(const Checkpoint& self) {
  std::vector<std::string> out;
  for (const auto& [name, view] : self.tensors()) out.push_back(name);
  return out;
}

std::vector<std::string> verify(const Checkpoint& self, const py::object& progress) {
  const NativeCall call;
  return self.verify(
      [&](std::uint64_t done, std::uint64_t total) { return report(progress, [&] { return progress(done, total); }); });
}

void check_cost_arguments(const ModelConfig& config, std::int64_t rows, std::int64_t steps, std::int64_t positions) {
  check<InvalidRequest>(rows >= 1 && rows <= kMaxRows, "rows is ", rows, "; it must be between 1 and ", kMaxRows);
  check<InvalidRequest>(steps >= 1 && steps <= kMaxInferenceSteps, "steps is ", steps, "; it must be between 1 and ",
                        kMaxInferenceSteps);
  check<InvalidRequest>(positions >= 0 && positions <= config.max_position_embeddings, "positions is ", positions,
                        "; it must be between 0 and the model's ", config.max_position_embeddings);
}

std::map<std::string, std::int64_t> cost_dict(const ModelConfig& config, const std::string& dtype, std::int64_t rows,
                                              std::int64_t steps, std::int64_t positions) {
  check_cost_arguments(config, rows, steps, positions);
  const TokenCost c = token_cost(config, dtype_from_name(dtype), rows, steps, positions);
  return {{"backbone", c.backbone.bytes},   {"kv", c.kv.bytes},
          {"condition", c.condition.bytes}, {"fm_modulation", c.fm_modulation.bytes},
          {"fm_steps", c.fm_steps.bytes},   {"total", c.total().bytes}};
}

std::map<std::string, std::map<std::string, std::int64_t>> stage_cost_dict(const ModelConfig& config,
                                                                           const std::string& dtype, std::int64_t rows,
                                                                           std::int64_t steps, std::int64_t positions) {
  check_cost_arguments(config, rows, steps, positions);
  const auto costs = stage_costs(config, dtype_from_name(dtype), rows, steps, positions);
  std::map<std::string, std::map<std::string, std::int64_t>> out;
  for (std::size_t i = 0; i < kStages; ++i)
    out[kStageNames[i]] = {
        {"bytes", costs[i].cost.bytes}, {"flops", costs[i].cost.flops}, {"barriers", costs[i].barriers}};
  return out;
}

void register_config(py::module_& m) {
  using C = ModelConfig;
  py::class_<C>(m, "ModelConfig", "The shape of a NextStep-1 model, as its config.json states it.")
      .def_static("from_json", &C::from_json, py::arg("text"),
                  "Reads the text of a config.json; raises CheckpointError naming the key and value that is wrong.")
      .def_readonly("hidden_size", &C::hidden_size)
      .def_readonly("intermediate_size", &C::intermediate_size)
      .def_readonly("num_hidden_layers", &C::num_hidden_layers)
      .def_readonly("num_attention_heads", &C::num_attention_heads)
      .def_readonly("num_key_value_heads", &C::num_key_value_heads)
      .def_readonly("head_dim", &C::head_dim)
      .def_readonly("rms_norm_eps", &C::rms_norm_eps)
      .def_readonly("rope_theta", &C::rope_theta)
      .def_readonly("vocab_size", &C::vocab_size)
      .def_readonly("max_position_embeddings", &C::max_position_embeddings)
      .def_readonly("attention_bias", &C::attention_bias)
      .def_readonly("o_attention_bias", &C::o_attention_bias)
      .def_readonly("mlp_bias", &C::mlp_bias)
      .def_readonly("tie_word_embeddings", &C::tie_word_embeddings)
      .def_readonly("latent_size", &C::latent_size)
      .def_readonly("latent_patch_size", &C::latent_patch_size)
      .def_readonly("latent_channels", &C::latent_channels)
      .def_readonly("use_gen_pos_embed", &C::use_gen_pos_embed)
      .def_readonly("boi", &C::boi)
      .def_readonly("eoi", &C::eoi)
      .def_readonly("image_placeholder_id", &C::image_placeholder_id)
      .def_readonly("pad_token_id", &C::pad_token_id)
      .def_readonly("fm_head_dim", &C::fm_head_dim)
      .def_readonly("fm_head_layers", &C::fm_head_layers)
      .def_readonly("fm_head_mlp_ratio", &C::fm_head_mlp_ratio)
      .def_readonly("vae_name_or_path", &C::vae_name_or_path)
      .def_property_readonly("fm_mlp_dim", &C::fm_mlp_dim, "Inner width of an FM block's MLP.")
      .def_property_readonly("token_dim", &C::token_dim, "Numbers in one image token.");
}

}  // namespace

void register_checkpoint(py::module_& m) {
  register_config(m);
  py::class_<Tensor>(m, "Tensor", "A read-only, zero-copy view of one weight; any DLPack library can take it.")
      .def_property_readonly("shape",
                             [](const Tensor& t) -> py::typing::Tuple<py::int_, py::ellipsis> {
                               return py::tuple(py::cast(t.view.shape));
                             })
      .def_property_readonly(
          "dtype", [](const Tensor& t) { return name_of(t.view.dtype); }, "'float32' or 'bfloat16'.")
      .def_property_readonly("nbytes", [](const Tensor& t) { return t.view.nbytes(); })
      .def("__dlpack__", &tensor_dlpack, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__", [](const Tensor&) { return py::make_tuple(static_cast<int>(kDLCPU), 0); });

  py::class_<Checkpoint>(m, "Checkpoint",
                         "A checkpoint folder in the released layout, memory-mapped; a mapping name -> Tensor.")
      .def(py::init<const std::string&>(), py::arg("folder"), py::call_guard<NativeCall>(),
           "Opens and checks every header, offset and shape. Raises CheckpointError.")
      .def_property_readonly("config", &Checkpoint::config, py::return_value_policy::reference_internal)
      .def_property_readonly("files", &Checkpoint::files)
      .def_property_readonly("nbytes", &Checkpoint::nbytes, "Sum of all tensors' bytes.")
      .def("keys", &names)
      .def("__iter__",
           [](const Checkpoint& c) -> py::typing::Iterator<py::str> { return py::iter(py::cast(names(c))); })
      .def("__len__", [](const Checkpoint& c) { return c.tensors().size(); })
      .def("__contains__", [](const Checkpoint& c, const std::string& n) { return c.tensors().contains(n); })
      .def("__getitem__", &get_tensor, py::arg("name"))
      .def("verify", &verify, py::arg("progress") = py::none(),
           "Reads every weight; returns the names of tensors with NaN or infinity. progress(done, total) in bytes may "
           "return False to stop early.");

  m.def("token_cost", &cost_dict, py::arg("config"), py::arg("dtype"), py::arg("rows"), py::arg("steps"),
        py::arg("positions"),
        "Bytes one image token streams, by stage: backbone, kv, condition, fm_modulation, fm_steps, total.");
  m.def("stage_cost", &stage_cost_dict, py::arg("config"), py::arg("dtype"), py::arg("rows"), py::arg("steps"),
        py::arg("positions"),
        "Of one image token, by the stages of Engine.stage_seconds(): bytes streamed, operations, and barriers of the "
        "CPU backend's threads. `steps` are network evaluations.");
}

}  // namespace nsrt::python
