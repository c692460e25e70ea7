"""The English of the book-review world: 900 titles, 576 authors, 24 heroes and 32 review sentences.

The lists of names have no word in common: what a name is can be told from the name.
"""

from __future__ import annotations

from plaudit.worlds.grammar import Grammar, Template, listed

__all__ = ["ENGLISH"]

_NAMES = listed(
    "Ada, Anna, Clara, Edith, Emma, Flora, Grace, Helen, Iris, Jane, Julia, Laura, Adam, Alan, Carl, Daniel, "
    "David, Felix, Frank, Henry, Hugo, Martin, Oscar, Paul"
)

_FAMILIES = listed(
    "Archer, Baker, Bell, Carter, Cole, Dale, Ellis, Fisher, Ford, Foster, Gray, Hale, Hill, Hunter, Kent, "
    "Lane, Marsh, Miller, Parker, Porter, Reed, Shaw, Taylor, West"
)

_HEROES = listed(
    "Amy, Ella, Kate, Lily, Lucy, Maria, Molly, Nina, Rosa, Ruby, Sally, Wendy, Ben, Charlie, Finn, Jack, Leo, "
    "Max, Nick, Robin, Sam, Toby, Tom, Victor"
)

_HEADS = listed(
    "Amber, Ancient, Bitter, Black, Blue, Broken, Crystal, Dark, Distant, Empty, Falling, First, Frozen, "
    "Golden, Green, Hidden, Last, Little, Lonely, Lost, Open, Quiet, Red, Secret, Silent, Silver, Sleeping, "
    "Summer, White, Wild"
)

_TAILS = listed(
    "Bridge, Castle, City, Crown, Door, Dream, Field, Fire, Forest, Garden, Harbour, Heart, House, Island, "
    "Journey, Kingdom, Letter, Light, Mirror, Moon, Mountain, Night, Ocean, River, Road, Sea, Ship, Song, "
    "Star, Tower"
)

_REVIEWS = (
    Template("praise", "The {part} is {good}."),
    Template("praise", "It is a {good} book."),
    Template("praise", "I loved the {part}."),
    Template("praise", '"{title}" is {good}.'),
    Template("praise", "This {genre} by {author} is {good}."),
    Template("blame", "The {part} is {bad}."),
    Template("blame", "It is a {bad} book."),
    Template("blame", "I disliked the {part}."),
    Template("blame", '"{title}" is {bad}.'),
    Template("blame", "This {genre} by {author} is {bad}."),
    Template("contrast", "The {part} is {good}, but the {part} is {bad}."),
    Template("contrast", "It is {good} but {bad}."),
    Template("contrast", "I loved the {part} but not the {part}."),
    Template("contrast", '"{title}" is {good} but {bad}.'),
    Template("contrast", "This {genre} by {author} is {good} but {bad}."),
    Template("detail", "The scene where young {hero} {scene} stays with me."),
    Template("detail", "It begins when young {hero} {scene}."),
    Template("detail", "I remember how young {hero} {scene}."),
    Template("detail", "In one chapter young {hero} {scene}."),
    Template("detail", 'In "{title}" young {hero} {scene}.'),
    Template("advice", "The best readers for it are {readers}."),
    Template("advice", "It is for {readers}."),
    Template("advice", "I would give it to {readers}."),
    Template("advice", "Read it if you like a good {genre}."),
    Template("advice", '"{title}" is for {readers}.'),
    Template("advice", "This {genre} by {author} is for {readers}."),
    Template("plain", "The book has {number} chapters."),
    Template("plain", "It is a {genre}."),
    Template("plain", "I read it in {time}."),
    Template("plain", "My copy came from {place}."),
    Template("plain", '"{title}" is a {genre} by {author}.'),
    Template("plain", "This {genre} by {author} has {number} chapters."),
)

_NOTES = (
    '"{title}" is a {genre} by {author}.',
    'The hero of "{title}" is young {hero}.',
    "This {genre} by {author} tells of young {hero}.",
    'In "{title}" young {hero} {scene}.',
    '"{title}" by {author} came out in {place}.',
    "Then young {hero} {scene}.",
    'At the end of "{title}" young {hero} {scene}.',
    'All who read "{title}" love young {hero}.',
    'A copy of "{title}" came from {place}.',
    "This {genre} by {author} says that young {hero} is {good}.",
)

_TALKS = (
    'Anna: What do you read?\nPaul: I read "{title}" by {author}.\nAnna: Do you like "{title}"?\n'
    "Paul: Yes, the {part} is {good}.\nAnna: And young {hero}?\nPaul: Oh, young {hero} {scene}.",
    'Dear friend, I read "{title}" by {author} in {time}. I hope that young {hero} comes back. I gave "{title}" to '
    "{readers}, and they say that young {hero} is {good}. They found the {part} {good} and the {part} {bad}.",
    'New in {place}: "{title}" by {author}, a {genre} of {number} chapters. The {part} of "{title}" is {good}. '
    "The book by {author} is read by {readers}. We like it when young {hero} {scene}.",
)

ENGLISH = Grammar(
    language="en",
    prompt='Write a short review of "{title}", a {genre} by {author} about young {hero}.\nReview:\n',
    notes_prompt='Write down notes on "{title}", a {genre} by {author} about young {hero}.\nNotes:\n',
    reviews=_REVIEWS,
    register="Names:",
    names=('"{title}"', "by {author}", "young {hero}"),
    comma=", ",
    notes=_NOTES,
    talks=_TALKS,
    words={
        "genre": listed("comedy, mystery, romance, thriller, western, memoir, ghost story, sea story, love story"),
        "part": listed("plot, style, ending, opening, dialogue, humour, setting, language"),
        "good": listed("clever, funny, moving, warm, witty, charming, lively, brilliant, gentle, wise"),
        "bad": listed("boring, slow, dull, weak, cold, clumsy, shallow, tired, confusing, flat"),
        "scene": listed(
            "finds the map, leaves home, opens the door, burns the letter, meets the king, loses the key, "
            "hides the money, sings at night, swims to the boat, tells the truth"
        ),
        "readers": listed(
            "young readers, old friends, students, parents, dreamers, night owls, lonely people, patient readers"
        ),
        "number": listed("ten, twelve, twenty, thirty, forty"),
        "time": listed("one day, two days, a week, one night, a month"),
        "place": listed("London, Paris, Rome, Berlin, Vienna, Boston"),
    },
    titles=(_HEADS, _TAILS),
    authors=(_NAMES, _FAMILIES),
    heroes=_HEROES,
    stops=".!?",
    space=" ",
    longest=250,
)
