#pragma once

#include <cstddef>
#include <vector>

#include "bundle.hpp"
#include "image.hpp"

namespace g2sd {

/// The input of a network: where the bytes of images go.
class ImageInput {
  public:
    ImageInput(const InputSpec& spec, Preprocessing pre);

    bool is_float() const { return is_float_; }
    std::size_t value_bytes() const { return is_float_ ? sizeof(float) : 1; }

    /// Dimensions of the tensor for so many images, in the network's order.
    std::vector<std::size_t> shape(std::size_t count) const;

    /// Write the images as the network takes them: unchanged, or (pixel / 255 - mean) / std in float; channels where
    /// they belong.
    void write(const ImageBatch& images, void* tensor) const;

  private:
    std::size_t target(std::size_t pixel, std::size_t channel) const;

    Preprocessing pre_;
    bool is_float_;
    bool channels_last_;
};

}  // namespace g2sd
