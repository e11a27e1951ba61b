#include "inflate.hpp"

#include <zlib.h>

#include <limits>

#include "error.hpp"

namespace g2sd {
namespace {

class Inflater {
  public:
    explicit Inflater(Deflate form) {
        constexpr int window_bits = 15;
        if (inflateInit2(&stream_, form == Deflate::raw ? -window_bits : window_bits) != Z_OK) {
            throw UserError("zlib cannot be started");
        }
    }
    Inflater(const Inflater&) = delete;
    Inflater(Inflater&&) = delete;
    Inflater& operator=(const Inflater&) = delete;
    Inflater& operator=(Inflater&&) = delete;
    ~Inflater() { inflateEnd(&stream_); }

    /// Whether the data end where the output is full.
    bool run(const std::uint8_t* data, std::size_t size, Bytes& out) {
        std::uint8_t none = 0;  // zlib wants an address even for no room
        stream_.next_in =
            const_cast<std::uint8_t*>(data);  // NOLINT(cppcoreguidelines-pro-type-const-cast): it only reads
        stream_.avail_in = static_cast<uInt>(size);
        stream_.next_out = out.empty() ? &none : out.data();
        stream_.avail_out = static_cast<uInt>(out.size());
        return inflate(&stream_, Z_FINISH) == Z_STREAM_END && stream_.avail_out == 0;
    }

  private:
    z_stream stream_{};
};

}  // namespace

Bytes inflated(const std::uint8_t* data, std::size_t size, std::size_t wanted, Deflate form) {
    constexpr std::size_t most = std::numeric_limits<uInt>::max();
    if (size > most || wanted > most) {
        throw UserError("it holds compressed data of more than 4 GiB");
    }
    Bytes out(wanted);
    if (!Inflater(form).run(data, size, out)) {
        throw UserError("its compressed data are damaged");
    }
    return out;
}

std::uint32_t crc32_of(const std::uint8_t* data, std::size_t size) {
    return static_cast<std::uint32_t>(crc32_z(0, data, size));
}

}  // namespace g2sd
