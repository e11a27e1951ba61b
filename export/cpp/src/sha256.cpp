#include "sha256.hpp"

#include <algorithm>
#include <string_view>

namespace g2sd {
namespace {

constexpr std::array<std::uint32_t, 64> round_constants{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

constexpr std::uint32_t rotated(std::uint32_t word, unsigned bits) {
    return (word >> bits) | (word << (32U - bits));
}

std::array<std::uint32_t, 64> schedule(const std::uint8_t* block) {
    std::array<std::uint32_t, 64> words{};
    for (std::size_t i = 0; i < 16; ++i) {
        const std::uint8_t* at = block + 4 * i;
        words[i] = std::uint32_t{at[0]} << 24U | std::uint32_t{at[1]} << 16U | std::uint32_t{at[2]} << 8U | at[3];
    }
    for (std::size_t i = 16; i < 64; ++i) {
        const std::uint32_t early = words[i - 15];
        const std::uint32_t late = words[i - 2];
        const std::uint32_t small0 = rotated(early, 7) ^ rotated(early, 18) ^ (early >> 3U);
        const std::uint32_t small1 = rotated(late, 17) ^ rotated(late, 19) ^ (late >> 10U);
        words[i] = words[i - 16] + small0 + words[i - 7] + small1;
    }
    return words;
}

}  // namespace

void Sha256::compress(const std::uint8_t* block) {
    const auto words = schedule(block);
    auto [a, b, c, d, e, f, g, h] = state_;
    for (std::size_t i = 0; i < 64; ++i) {
        const std::uint32_t big1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
        const std::uint32_t first = h + big1 + ((e & f) ^ (~e & g)) + round_constants[i] + words[i];
        const std::uint32_t big0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
        const std::uint32_t second = big0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + first;
        d = c;
        c = b;
        b = a;
        a = first + second;
    }
    const std::array<std::uint32_t, 8> added{a, b, c, d, e, f, g, h};
    std::transform(state_.begin(), state_.end(), added.begin(), state_.begin(), std::plus<>());
}

void Sha256::update(const std::uint8_t* bytes, std::size_t size) {
    while (size > 0) {
        const std::size_t held = num_bytes_ % 64;
        if (held == 0 && size >= 64) {
            compress(bytes);  // whole blocks are read where they lie
            bytes += 64;
            size -= 64;
            num_bytes_ += 64;
            continue;
        }
        const std::size_t taken = std::min<std::size_t>(size, 64 - held);
        std::copy_n(bytes, taken, pending_.data() + held);
        bytes += taken;
        size -= taken;
        num_bytes_ += taken;
        if (num_bytes_ % 64 == 0) {
            compress(pending_.data());
        }
    }
}

std::string Sha256::hex() {
    const std::uint64_t num_bits = num_bytes_ * 8;
    const std::size_t zeros = (119 - num_bytes_ % 64) % 64;
    Bytes padding(1 + zeros + 8, 0);
    padding.front() = 0x80;
    for (std::size_t i = 0; i < 8; ++i) {
        padding[1 + zeros + i] = static_cast<std::uint8_t>(num_bits >> (56 - 8 * i));
    }
    update(padding.data(), padding.size());
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const std::uint32_t word : state_) {
        for (int shift = 28; shift >= 0; shift -= 4) {
            out += digits[(word >> static_cast<unsigned>(shift)) & 15U];
        }
    }
    return out;
}

std::string sha256_of(const Bytes& content) {
    Sha256 digest;
    digest.update(content.data(), content.size());
    return digest.hex();
}

}  // namespace g2sd
