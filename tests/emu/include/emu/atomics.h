// Atomic functions of the device language: relaxed, whatever their scope.
#pragma once

#include <bit>
#include <type_traits>

#include "emu/core.h"

namespace emu {

template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

// Sets *address to next(*address) and returns what it was.
template <class T, class Next>
__forceinline__ T update(T* address, Order order, Next next) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const T old = std::bit_cast<T>(static_cast<Bits<T>>(begin_update(address, sizeof(T), order)));
  end_update(address, sizeof(T), std::bit_cast<Bits<T>>(static_cast<T>(next(old))));
  return old;
}

}  // namespace emu

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old + value; });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old - value; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old < value ? value : old; });
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old & value; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old | value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return emu::update(address, emu::Order::relaxed, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned last) {
  return emu::update(address, emu::Order::relaxed, [=](unsigned old) { return old >= last ? 0u : old + 1; });
}
