// Writes small checkpoints, right and wrong, for the tests of the readers.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "core/check.h"
#include "core/tensor_names.h"
#include "nextstep_rt/config.h"

namespace nsrt::test {

namespace fs = std::filesystem;

// A folder of its own under the system's temporary one, removed at the end.
class TempDir {
 public:
  TempDir() {
    static int count = 0;
    path_ = fs::temp_directory_path() / nsrt::str("nsrt_test_", ::getpid(), "_", count++);
    fs::create_directories(path_);
  }
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string str() const { return path_.string(); }
  std::string file(std::string_view name) const { return (path_ / name).string(); }
  std::string write(std::string_view name, std::string_view bytes) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream out(path_ / name, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return file(name);
  }

 private:
  fs::path path_;
};

inline std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  return at == std::string::npos ? "<no such text to replace>" : text.replace(at, from.size(), to);
}

// `header` and `data` behind the length that fits.
inline std::string safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

// Header and data grow by one tensor at a time; all data bytes are the same.
class SafetensorsWriter {
 public:
  void add(const std::string& name, const std::string& dtype, const std::vector<std::int64_t>& shape,
           std::size_t item) {
    std::size_t bytes = item;
    std::string sizes;
    for (const std::int64_t d : shape) {
      bytes *= static_cast<std::size_t>(d);
      sizes += nsrt::str(sizes.empty() ? "" : ",", d);
    }
    header_ += nsrt::str(header_.empty() ? "" : ",", "\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", sizes,
                         "],\"data_offsets\":[", data_.size(), ",", data_.size() + bytes, "]}");
    data_.append(bytes, '\x3F');
  }
  // Padded with spaces to a multiple of `align`, then `shift` more.
  std::string bytes(std::size_t align = 8, std::size_t shift = 0) const {
    std::string header = nsrt::str("{", header_, "}");
    while (header.size() % align != 0) header += ' ';
    return safetensors(header + std::string(shift, ' '), data_);
  }

 private:
  std::string header_;
  std::string data_;
};

inline const char* const kTinyConfig = R"({
  "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
  "num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "vocab_size": 40,
  "max_position_embeddings": 128, "attention_bias": true, "o_attention_bias": false, "mlp_bias": false,
  "tie_word_embeddings": false, "latent_size": 4, "latent_patch_size": 2, "latent_channels": 2, "boi": 1, "eoi": 2,
  "image_placeholder_id": 3, "pad_token_id_added": 0, "fm_head_dim": 16, "fm_head_layers": 1,
  "use_gen_pos_embed": false, "vae_name_or_path": "vae/"
})";

// All tensors of a config, in bfloat16, but for the one named `without`.
inline SafetensorsWriter weights_of(const std::string& config, const std::string& prefix = "",
                                    std::string_view without = "") {
  SafetensorsWriter writer;
  for (const TensorSpec& spec : expected_tensors(ModelConfig::from_json(config)))
    if (spec.name != "gen_pos_embed" && spec.name != without) writer.add(prefix + spec.name, "BF16", spec.shape, 2);
  return writer;
}

inline SafetensorsWriter tiny_weights(const std::string& prefix = "", std::string_view without = "") {
  return weights_of(kTinyConfig, prefix, without);
}

}  // namespace nsrt::test
