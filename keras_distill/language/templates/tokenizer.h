// The ids of a text, as those that @NAME@ was trained on: @DOCUMENTED@.
#ifndef @GUARD@_TOKENIZER_H_
#define @GUARD@_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace @NAME@ {

@TOKEN@

class Tokenizer {
 public:
  static constexpr int kLength = @LENGTH@;

  // Writes the ids of the first kLength tokens of a text in UTF-8 of `size` bytes, and 0 in place of
  // those that are missing.
  static void Ids(const char* text, std::size_t size, std::int32_t* ids) {
    Token token;
    int count = 0;
    for (std::size_t i = 0; i < size && count < kLength; ++i) {
      unsigned char byte = static_cast<unsigned char>(text[i]);
      if (kStrips && IsPunctuation(byte)) continue;
      if (Ends(byte) && !token.empty()) {
        ids[count++] = token.Id();
        token = Token();
      }
      if (kLowers && byte >= 'A' && byte <= 'Z') byte = static_cast<unsigned char>(byte + 32);
      if (kKeepsSpaces || !IsSpace(byte)) token.Add(byte);
    }
    if (count < kLength && !token.empty()) ids[count++] = token.Id();
    while (count < kLength) ids[count++] = 0;
  }

 private:
  static constexpr bool kLowers = @LOWERS@;
  static constexpr bool kStrips = @STRIPS@;
  static constexpr bool kKeepsSpaces = @KEEPS_SPACES@;

  static bool IsSpace(unsigned char byte) { return byte == 32 || (byte >= 9 && byte <= 13); }

  static bool IsPunctuation(unsigned char byte) {
    return (byte >= 33 && byte <= 47) || (byte >= 58 && byte <= 64) ||
           (byte >= 91 && byte <= 96) || (byte >= 123 && byte <= 126);
  }

  // Whether a byte is none of the token before it.
  static bool Ends(unsigned char byte) { return @ENDS@; }
};

}  // namespace @NAME@

#endif  // @GUARD@_TOKENIZER_H_
