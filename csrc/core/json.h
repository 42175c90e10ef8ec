// A strict JSON reader for the files of a checkpoint. Whatever the bytes are, the outcome is a tree or a
// CheckpointError with the byte offset.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace nsrt {

class Json {
 public:
  using Array = std::vector<Json>;
  // Sorted by key.
  using Object = std::vector<std::pair<std::string, Json>>;
  // monostate is null. An integer that fits 64 bits stays exact; every other number is a double.
  using Value = std::variant<std::monostate, bool, std::int64_t, double, std::string, Array, Object>;

  Json() = default;
  explicit Json(Value value) : value_(std::move(value)) {}

  // `source` opens every error message. Throws CheckpointError.
  static Json parse(std::string_view text, const std::string& source);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  // The value if it has type T, otherwise nullptr.
  template <class T>
  const T* get() const {
    return std::get_if<T>(&value_);
  }
  // The member of an object; nullptr if there is none, or if this is no object.
  const Json* find(std::string_view key) const;
  // An integer, or a number with an integral value that a double holds exactly (256.0): writes it and returns true.
  bool to_int(std::int64_t& out) const;
  bool to_double(double& out) const;
  // Short text for error messages.
  std::string describe() const;

 private:
  Value value_;
};

// The text in quotes, cut to a printable length, with control characters escaped: names from a file go into error
// messages only through this.
std::string quoted(std::string_view text);

}  // namespace nsrt
