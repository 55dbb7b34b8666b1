"""Chapter 09: how far can a perceptual metric be fooled?"""
