#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "zip.hpp"

namespace g2sd {

/// An array in C order. Type is std::uint8_t or float.
template <typename Type>
struct Array {
    std::vector<std::size_t> shape;
    std::vector<Type> values;
};

/// The arrays of a .npz file of numpy. Source: numpy.lib.format, versions 1 to 3.
class NpzFile {
  public:
    explicit NpzFile(Bytes content) : archive_(std::move(content)) {}

    bool holds(const std::string& name) const { return archive_.holds(name + ".npy"); }

    /// Throws UserError where there is no such array, or one of another type or order.
    Array<std::uint8_t> bytes(const std::string& name) const;
    Array<float> floats(const std::string& name) const;

  private:
    ZipArchive archive_;
};

}  // namespace g2sd
