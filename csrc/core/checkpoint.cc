#include "nextstep_rt/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/check.h"
#include "core/finite.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "core/safetensors.h"
#include "core/tensor_names.h"

namespace nsrt {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kPrefix = "model.";
constexpr std::size_t kMaxConfig = std::size_t{1} << 24;
constexpr std::size_t kMaxIndex = 100'000'000;

// Tensor name -> file name, both as the index has them.
using WeightMap = std::map<std::string, std::string>;

// True also for a link that leads nowhere: such a file is meant to be there, and opening it says what is wrong.
bool is_listed(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

// Names of shards come from the checkpoint, and must not lead out of its folder.
bool is_plain_name(const std::string& name) {
  const auto is_odd = [](char c) { return c == '\\' || (c >= '\0' && c < ' '); };
  if (std::any_of(name.begin(), name.end(), is_odd)) return false;
  const fs::path path(name);
  if (path.is_absolute() || path.empty()) return false;
  return std::all_of(path.begin(), path.end(),
                     [](const fs::path& part) { return !part.empty() && part != "." && part != ".."; });
}

WeightMap read_index(const fs::path& path) {
  const Json json = Json::parse(read_text(path.string(), kMaxIndex), path.string());
  const Json* map = json.find("weight_map");
  const auto* members = map != nullptr ? map->get<Json::Object>() : nullptr;
  check<CheckpointError>(members != nullptr && !members->empty(), path.string(),
                         R"( needs a "weight_map" object: tensor name -> file name)");
  WeightMap out;
  for (const auto& [tensor, file] : *members) {
    const auto* name = file.get<std::string>();
    check<CheckpointError>(name != nullptr && is_plain_name(*name), path.string(), ": tensor ", quoted(tensor),
                           " is said to be in ", file.describe(),
                           ", which is no file name inside the checkpoint's folder");
    check<CheckpointError>(name->ends_with(".safetensors"), path.string(), ": ", quoted(*name),
                           " is no .safetensors file; convert the checkpoint to safetensors");
    out.emplace(tensor, *name);
  }
  return out;
}

// A file's tensors and the index's entries for it must be the same.
void check_shard(const SafetensorsFile& shard, const std::string& file_name, const WeightMap& weight_map) {
  for (const auto& [tensor, view] : shard.tensors()) {
    const auto it = weight_map.find(tensor);
    check<CheckpointError>(it != weight_map.end(), shard.file().path(), " holds the tensor ", quoted(tensor),
                           ", which the index does not list; index and files do not belong together");
    if (it->second != file_name)
      throw CheckpointError(str("tensor ", quoted(tensor), " is in ", shard.file().path(),
                                ", but the index says it is in ", quoted(it->second)));
  }
  for (const auto& [tensor, name] : weight_map)
    check<CheckpointError>(name != file_name || is_unused_buffer(tensor) || shard.tensors().contains(tensor),
                           shard.file().path(), " has no tensor ", quoted(tensor), ", although the index says so");
}

std::string model_name(const std::string& stored) {
  return stored.starts_with(kPrefix) ? stored.substr(kPrefix.size()) : stored;
}

}  // namespace

struct Checkpoint::Impl {
  explicit Impl(const fs::path& folder) {
    std::error_code error;
    check<CheckpointError>(fs::is_directory(folder, error), folder.string(), " is not a folder", error ? ": " : "",
                           error ? error.message() : "");
    const std::string config_path = (folder / "config.json").string();
    config = ModelConfig::from_json(read_text(config_path, kMaxConfig));
    open_files(folder);
    for (const SafetensorsFile& shard : shards) take(shard);
    check_tensors(config, tensors);
  }

  void open_files(const fs::path& folder) {
    if (is_listed(folder / kIndexName)) {
      const WeightMap weight_map = read_index(folder / kIndexName);
      std::set<std::string> names;
      for (const auto& [tensor, name] : weight_map) names.insert(name);
      for (const std::string& name : names) {
        shards.emplace_back((folder / name).string());
        check_shard(shards.back(), name, weight_map);
      }
      return;
    }
    check<CheckpointError>(is_listed(folder / kSingleName), folder.string(), " has neither ", kSingleName, " nor ",
                           kIndexName, "; weights in other formats must be converted to safetensors");
    shards.emplace_back((folder / kSingleName).string());
  }

  void take(const SafetensorsFile& shard) {
    files.push_back(shard.file().path());
    for (const auto& [stored, view] : shard.tensors()) {
      const std::string name = model_name(stored);
      check<CheckpointError>(tensors.emplace(name, view).second, shard.file().path(), ": the tensor ", quoted(name),
                             " is there twice, with and without \"model.\" before its name");
      nbytes += view.nbytes();
    }
  }

  ModelConfig config;
  std::vector<SafetensorsFile> shards;
  TensorMap tensors;
  std::vector<std::string> files;
  std::uint64_t nbytes = 0;
};

Checkpoint::Checkpoint(const std::string& folder) {
  check<CheckpointError>(!folder.empty() && folder.find('\0') == std::string::npos, "the checkpoint folder ",
                         quoted(folder), " is not a path");
  std::error_code error;
  const fs::path path = fs::absolute(folder, error);
  check<CheckpointError>(!error, "the checkpoint folder ", folder, " is not a path: ", error.message());
  try {
    impl_ = std::make_unique<Impl>(path);
  } catch (const CheckpointError& e) {
    // Messages from deeper down may know only the file, or only the config.
    const std::string what = e.what();
    if (what.find(path.string()) != std::string::npos) throw;
    throw CheckpointError(str(path.string(), ": ", what));
  }
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

const ModelConfig& Checkpoint::config() const { return impl_->config; }
const TensorMap& Checkpoint::tensors() const { return impl_->tensors; }
const std::vector<std::string>& Checkpoint::files() const { return impl_->files; }
std::uint64_t Checkpoint::nbytes() const { return impl_->nbytes; }

std::vector<std::string> Checkpoint::verify(const std::function<bool(std::uint64_t, std::uint64_t)>& progress) const {
  std::vector<std::string> bad = find_non_finite(impl_->shards, progress);
  std::transform(bad.begin(), bad.end(), bad.begin(), model_name);
  return bad;
}

}  // namespace nsrt
